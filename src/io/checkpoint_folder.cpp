#include "io/checkpoint_folder.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/durable_file.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";
constexpr std::size_t kStepDigits = 8;
constexpr std::size_t kReadBytes = std::size_t{4} << 20;

// Reads a file in blocks and compares size and digest; `keep` takes the bytes where it is not null.
void read_verified(const FileDescriptor& folder, const fs::path& shown_folder,
                   const ManifestFile& expected, std::vector<std::byte>* keep) {
  const fs::path path = shown_folder / expected.name;
  const OpenedFile file = open_in_folder(folder, expected.name, path);
  if (file.bytes != expected.bytes) {
    throw_bad_input(path.string() + " has " + std::to_string(file.bytes) +
                    " bytes, its manifest says " + std::to_string(expected.bytes) +
                    ": the checkpoint is damaged");
  }
  std::vector<std::byte> buffer(
      keep != nullptr ? expected.bytes : std::min<std::uint64_t>(expected.bytes, kReadBytes));
  Sha256 hash;
  for (std::uint64_t offset = 0; offset < expected.bytes;) {
    const std::size_t count = std::min<std::uint64_t>(kReadBytes, expected.bytes - offset);
    const std::span<std::byte> block =
        std::span(buffer).subspan(keep != nullptr ? offset : 0, count);
    read_exactly(file.descriptor, offset, block, path);
    hash.update(block);
    offset += count;
  }
  if (hash.hex() != expected.sha256) {
    throw_bad_input(path.string() + " does not match its SHA-256: the checkpoint is damaged");
  }
  if (keep != nullptr) {
    *keep = std::move(buffer);
  }
}

std::string read_manifest_text(const FileDescriptor& folder, const fs::path& path) {
  const OpenedFile file = open_in_folder(folder, kManifestName, path);
  if (file.bytes > kMaxManifestBytes) {
    throw_bad_input(path.string() + " has " + std::to_string(file.bytes) +
                    " bytes, too large for a manifest");
  }
  std::string text(file.bytes, '\0');
  read_exactly(file.descriptor, 0, std::as_writable_bytes(std::span(text)), path);
  return text;
}

// Fails with EEXIST where `to` exists, also where it is an empty folder, which plain rename would
// replace.
int rename_to_new(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return errno;
  }
  struct stat ignored {};
  if (::lstat(to.c_str(), &ignored) == 0) {
    return EEXIST;
  }
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

// `from` takes the place of `to`, which ends up under the name of `from`.
int exchange(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return errno;
  }
  const fs::path aside = from.string() + "-replaced";
  if (const int error = rename_to_new(to, aside); error != 0) {
    return error;
  }
  const int error = rename_to_new(from, to);
  return rename_to_new(aside, error == 0 ? from : to) == 0 ? error : errno;
}

}  // namespace

std::string checkpoint_name(std::int64_t step) {
  LS_ASSERT(step >= 0);
  std::string digits = std::to_string(step);
  if (digits.size() < kStepDigits) {
    digits.insert(0, kStepDigits - digits.size(), '0');
  }
  return std::string(kStepPrefix) + digits;
}

std::optional<std::int64_t> checkpoint_step(std::string_view name) {
  constexpr std::size_t kMostDigits = 18;  // fits int64
  if (!name.starts_with(kStepPrefix)) {
    return std::nullopt;
  }
  const std::string_view digits = name.substr(kStepPrefix.size());
  if (digits.empty() || digits.size() > kMostDigits ||
      !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return std::nullopt;
  }
  std::int64_t step = 0;
  for (const char c : digits) {
    step = step * 10 + (c - '0');
  }
  return checkpoint_name(step) == name ? std::optional(step) : std::nullopt;
}

Checkpoint::Checkpoint(fs::path folder) : folder_(std::move(folder)) {
  if (!folder_.has_filename()) {
    folder_ = folder_.parent_path();  // a slash at the end
  }
  const std::optional<std::int64_t> step = checkpoint_step(folder_.filename().string());
  if (!step) {
    throw_bad_input(folder_.string() + " is no checkpoint: its folder must be named like " +
                    checkpoint_name(100));
  }
  verify(*step);
}

Checkpoint::Checkpoint(fs::path folder, std::int64_t expected_step) : folder_(std::move(folder)) {
  verify(expected_step);
}

void Checkpoint::verify(std::int64_t expected_step) {
  descriptor_ =
      FileDescriptor(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!descriptor_.is_open()) {
    throw_bad_input(folder_.string() +
                    " cannot be opened as a checkpoint folder: " + describe_errno(errno));
  }
  const fs::path path = folder_ / kManifestName;
  manifest_ = parse_manifest(read_manifest_text(descriptor_, path), path.string());
  if (manifest_.step != expected_step) {
    throw_bad_input(path.string() + ": is of step " + std::to_string(manifest_.step) +
                    ", but the folder says " + std::to_string(expected_step) +
                    ": the folder was renamed");
  }
  for (const ManifestFile& file : manifest_.files) {
    read_verified(descriptor_, folder_, file, nullptr);
  }
}

bool Checkpoint::has(std::string_view name) const {
  return std::any_of(manifest_.files.begin(), manifest_.files.end(),
                     [&](const ManifestFile& file) { return file.name == name; });
}

std::vector<std::byte> Checkpoint::read(std::string_view name) const {
  for (const ManifestFile& file : manifest_.files) {
    if (file.name == name) {
      std::vector<std::byte> bytes;
      read_verified(descriptor_, folder_, file, &bytes);
      return bytes;
    }
  }
  throw_bad_input(folder_.string() + " holds no file " + in_quotes(name) +
                  ": it was written by another kind of run; choose another checkpoint");
}

CheckpointWriter::CheckpointWriter(fs::path checkpoints, std::int64_t step, std::int64_t generation)
    : checkpoints_(std::move(checkpoints)) {
  LS_ASSERT(generation >= 0);
  manifest_.step = step;
  manifest_.generation = generation;
  temporary_ = checkpoints_ / (".tmp-" + checkpoint_name(step) + "-" + std::to_string(generation));
  create_folders(checkpoints_);
  std::error_code failure;
  fs::remove_all(temporary_, failure);
  if (failure) {
    throw_cannot_write(checkpoints_, failure.value());
  }
  if (::mkdir(temporary_.c_str(), 0777) != 0) {
    throw_cannot_write(temporary_, errno);
  }
}

CheckpointWriter::~CheckpointWriter() {
  if (committed_) {
    return;
  }
  std::error_code failure;
  fs::remove_all(temporary_, failure);
  if (failure) {
    std::fprintf(stderr, "warning: %s could not be removed\n", temporary_.c_str());
  }
}

void CheckpointWriter::add(const std::string& name, std::span<const std::byte> data) {
  add(name, std::span(&data, 1));
}

void CheckpointWriter::add(const std::string& name, std::string_view text) {
  add(name, std::as_bytes(std::span(text)));
}

void CheckpointWriter::add(const std::string& name,
                           std::span<const std::span<const std::byte>> pieces) {
  LS_ASSERT(!committed_ && is_plain_file_name(name) && name != kManifestName);
  ManifestFile entry{name, 0, {}};
  for (const std::span<const std::byte> piece : pieces) {
    entry.bytes += piece.size();
  }
  const fs::path path = temporary_ / name;
  FileDescriptor file = create_file(path);
  reserve_space(file, entry.bytes, path);
  Sha256 hash;
  for (const std::span<const std::byte> piece : pieces) {
    write_all(file, piece, path);
    hash.update(piece);
  }
  sync_and_close(file, path);
  entry.sha256 = hash.hex();
  manifest_.files.push_back(std::move(entry));
}

fs::path CheckpointWriter::commit(std::string_view fields,
                                  const std::function<void()>& before_rename, Existing existing) {
  LS_ASSERT(!committed_);
  manifest_.fields = fields;
  const std::string text = compose_manifest(manifest_);
  const fs::path path = temporary_ / kManifestName;
  FileDescriptor file = create_file(path);
  write_all(file, std::as_bytes(std::span(text)), path);
  sync_and_close(file, path);
  sync_folder(temporary_);
  try {
    const Checkpoint verified(temporary_, manifest_.step);
  } catch (const Error& error) {
    throw Error(ExitCode::kCannotWrite,
                std::string("a checkpoint does not read back as it was written: ") + error.what() +
                    "; the storage or memory of this machine is failing");
  }
  if (before_rename) {
    before_rename();
  }
  fs::path target = checkpoints_ / checkpoint_name(manifest_.step);
  move_into_place(target, existing);
  committed_ = true;
  sync_folder(checkpoints_);
  if (existing == Existing::kReplaced) {
    std::error_code ignored;  // remove_leftovers() comes by again
    fs::remove_all(temporary_, ignored);
  }
  try {
    write_file_atomically(checkpoints_ / "LATEST", target.filename().string() + "\n");
  } catch (const Error& error) {
    spdlog::warn("The checkpoint is complete, but its hint is not: {}", error.what());
  }
  return target;
}

void CheckpointWriter::move_into_place(const fs::path& target, Existing existing) {
  int error_number = rename_to_new(temporary_, target);
  if (error_number == EEXIST && existing == Existing::kReplaced) {
    error_number = exchange(temporary_, target);
    if (error_number != 0) {
      throw_cannot_write(target, error_number);
    }
    return;
  }
  if (error_number == EEXIST || error_number == ENOTEMPTY) {
    try {
      const Checkpoint existing(target);
    } catch (const Error& damage) {
      const fs::path aside = checkpoints_ / (".trash-" + temporary_.filename().string().substr(5));
      spdlog::warn("Replacing a damaged checkpoint: {}", damage.what());
      std::error_code ignored;
      fs::remove_all(aside, ignored);
      error_number = rename_to_new(target, aside);
      if (error_number == 0) {
        error_number = rename_to_new(temporary_, target);
        fs::remove_all(aside, ignored);
      }
      if (error_number == 0) {
        return;
      }
    }
  }
  if (error_number == EEXIST || error_number == ENOTEMPTY) {
    throw Error(ExitCode::kCannotWrite,
                target.string() +
                    " exists already and is intact: choose another run.output_dir, or "
                    "remove the checkpoints that are newer than where you resume");
  }
  if (error_number != 0) {
    throw_cannot_write(target, error_number);
  }
}

std::vector<std::int64_t> list_checkpoints(const fs::path& checkpoints) {
  std::vector<std::int64_t> steps;
  std::error_code failure;
  fs::directory_iterator entries(checkpoints, failure);
  if (failure == std::errc::no_such_file_or_directory) {
    return steps;
  }
  for (; !failure && entries != fs::directory_iterator(); entries.increment(failure)) {
    if (const auto step = checkpoint_step(entries->path().filename().string())) {
      steps.push_back(*step);
    }
  }
  if (failure) {
    throw_bad_input(checkpoints.string() + " cannot be listed: " + describe_errno(failure.value()));
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

NewestCheckpoint find_newest_valid(const fs::path& checkpoints, std::int64_t before) {
  NewestCheckpoint result;
  for (const std::int64_t step : list_checkpoints(checkpoints)) {
    if (step >= before) {
      continue;
    }
    const fs::path folder = checkpoints / checkpoint_name(step);
    try {
      result.checkpoint.emplace(folder);
      return result;
    } catch (const Error& error) {
      result.skipped.push_back({folder, error.what()});
    }
  }
  return result;
}

}  // namespace lorascale::io
