#include "prepare/preparer.hpp"

#include <array>

#include "base/error.hpp"

namespace lorascale::prepare {

std::span<const Preparer> preparers() {
  static const std::array table = {kTextPreparer};
  return table;
}

Claim claim(const std::string& key, std::span<const std::filesystem::path> paths,
            const KeepGoing& keep_going) {
  Claim found;
  for (const auto& path : paths) {
    const Preparer* preparer = nullptr;
    std::optional<Inputs> inputs;
    std::string known;
    for (const auto& candidate : preparers()) {
      known += (known.empty() ? "" : "; ") + std::string(candidate.takes);
      if (!inputs && (inputs = candidate.find_inputs(path, keep_going))) {
        preparer = &candidate;
      }
    }
    if (preparer == nullptr) {
      throw_bad_input(key + " " + path.string() + " holds nothing to train on; it takes a token " +
                      "file (.h5), " + known);
    }
    if (found.preparer != nullptr && found.preparer != preparer) {
      throw_bad_input(key + " names " + std::string(found.preparer->name) + " and " +
                      std::string(preparer->name) + "; a run takes one of them");
    }
    found.preparer = preparer;
    auto& all = found.inputs;
    all.arguments.insert(all.arguments.end(), inputs->arguments.begin(), inputs->arguments.end());
    all.files.insert(all.files.end(), inputs->files.begin(), inputs->files.end());
  }
  return found;
}

}  // namespace lorascale::prepare
