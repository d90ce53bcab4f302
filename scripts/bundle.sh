#!/usr/bin/env bash
# Packs a built lorascale for machines where nothing can be installed:
#
#   scripts/bundle.sh [--preset release] [--mpi system|copy] [--output FILE.tar.gz]
#
# The tarball unpacks anywhere: bin/lorascale, all that `cmake --install` puts into share/lorascale (cmake/Install.cmake
# has the list), and the libraries of the build machine. Two things are the target's own:
# - libtorch, of the same version: from `python3 -m pip install -r requirements.txt`, or LORASCALE_TORCH_LIB=FOLDER
# - Open MPI 4 (any with libmpi.so.40), because it must match the cluster's network, ssh and SLURM. `--mpi copy` packs
#   this machine's, for single machines that have none: shared memory and TCP, one machine only.
# The C library must be as new as the one the bundle says it needs; the launcher checks.
# The same commit and build give the same bytes.
set -euo pipefail
here=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/.." && pwd)
fail() { echo "bundle.sh: $*" >&2; exit 64; }

preset=release mpi=system output=''
while (($#)); do
  case $1 in
    -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    --preset | --mpi | --output)
      (($# >= 2)) || fail "$1 needs a value (see --help)"
      case $1 in --preset) preset=$2 ;; --mpi) mpi=$2 ;; --output) output=$2 ;; esac
      shift 2 ;;
    *) fail "unknown argument '$1' (see --help)" ;;
  esac
done
[[ $mpi == system || $mpi == copy ]] || fail "--mpi is '$mpi'; it takes system or copy"
build=$here/build/$preset
[[ -x $build/lorascale ]] || fail "$build/lorascale is missing; run scripts/build.sh $preset first"

version=$("$build/lorascale" --version | sed 's/^lorascale //')
name=lorascale-$version-linux-$(uname -m)
output=$(realpath "${output:-$build/$name.tar.gz}")
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/$name

# Libraries that every Linux has in its own version, and those the target brings.
never='^(ld-linux.*|libc|libm|libmvec|libdl|libpthread|librt|libutil|libresolv|libnsl|libanl)\.so'
target='^lib(mpi|torch|c10|cuda|cublas|cudnn|nv|nccl|gomp)'
# Wanted in this very version; the rest is carried for machines that lack it.
own='^lib(spdlog|fmt|yaml-cpp|hdf5|sz|aec|boost)'

needed() { objdump -p "$1" | awk '$1 == "NEEDED" {print $2}'; }
resolve() { ldd "$@" | awk '$2 == "=>" && $3 ~ "^/" {print $1, $3}'; }

# Copies the libraries FILE needs into FOLDER, theirs included, but not those matching SKIP.
declare -A place copied
copy_libraries() {  # FILE FOLDER SKIP
  local library folder
  for library in $(needed "$1"); do
    [[ ! $library =~ $never && ! ($3 && $library =~ $3) && -z ${copied[$library]:-} ]] || continue
    [[ -n ${place[$library]:-} ]] || fail "$library, which $1 needs, was not found"
    folder=$2
    [[ $library =~ $own ]] || folder+=/fallback
    [[ $2 != */mpi/lib ]] || folder=$2
    copied[$library]=yes
    install -D -m 644 "${place[$library]}" "$folder/$library"
    copy_libraries "${place[$library]}" "$2" "$3"
  done
}

cmake --install "$build" --prefix "$stage/install" --strip >/dev/null
mkdir -p "$root/bin" "$root/libexec"
mv "$stage/install/share/lorascale/"* "$root/"
mv "$stage/install/bin/lorascale" "$root/libexec/lorascale"
mv "$root/launch/bundle_start.sh" "$root/bin/lorascale"
ln -sfn ../../bin/lorascale "$root/build/release/lorascale"
# This machine's folders mean nothing elsewhere.
echo "file(RPATH_SET FILE \"$root/libexec/lorascale\" NEW_RPATH \"\$ORIGIN/../lib\")" >"$stage/rpath.cmake"
cmake -P "$stage/rpath.cmake" >/dev/null
while read -r library path; do place[$library]=$path; done < <(resolve "$build/lorascale")
copy_libraries "$build/lorascale" "$root/lib" "$target"

copy_mpi() {
  local orterun folder file
  orterun=$(realpath "$(command -v mpirun)")
  [[ $(mpirun --version) == *"Open MPI) 4."* ]] || fail "--mpi copy: $orterun is not Open MPI 4"
  mpi_path() { ompi_info --path "$1" --parsable | cut -d: -f3; }
  mkdir -p "$root/mpi/"{bin,lib/openmpi,share,etc}
  cp "$orterun" "$root/mpi/bin/orterun"
  cp "$(dirname "$orterun")/orted" "$root/mpi/bin/orted"
  # Plugins by their folder below the prefix, which is how Open MPI finds them; without those of networks.
  folder=$root/mpi$(mpi_path pkglibdir | sed "s|^$(mpi_path prefix)||")
  mkdir -p "$folder"
  for file in "$(mpi_path pkglibdir)"/mca_*.so; do
    case ${file##*/} in
      *ofi* | *ucx* | *uct* | *psm* | *openib* | *usnic* | *portals* | *hcoll* | *ucc* | *lustre* | *gpfs* | *pvfs* | \
        *slurm* | *tm.so | *gridengine* | *loadleveler* | *cuda* | *monitoring* | *ompio* | *romio* | *fs_* | *fbtl* | *fcoll* | *sharedfp* | \
        *spml* | *scoll* | *atomic* | *memheap* | *sshmem*) ;;
      *) cp "$file" "$folder/" ;;
    esac
  done
  [[ ! -d $(mpi_path pkgdatadir) ]] || cp -rL "$(mpi_path pkgdatadir)" "$root/mpi/share/"
  # libmpi and the libraries of its plugins; PMIx stands in for them all.
  copied=()
  local files=("$root/mpi/bin/orterun" "$folder"/*.so "${place[libmpi.so.40]}")
  while read -r library path; do place[$library]=$path; done < <(resolve "${files[@]}")
  for file in "${files[@]}"; do
    copy_libraries "$file" "$root/mpi/lib" ''
  done
  install -m 644 "${place[libmpi.so.40]}" "$root/mpi/lib/libmpi.so.40"
  folder=$(find "$(dirname "$(realpath "${place[libpmix.so.2]}")")"/ -maxdepth 4 -name 'pmix_mca_*.so' -printf '%h\n' | sed 1q)
  if [[ -n $folder ]]; then
    mkdir -p "$root/mpi/lib/pmix"
    cp "$folder"/pmix_mca_*.so "$root/mpi/lib/pmix/"
  fi
  ln -s lorascale "$root/bin/mpirun"
}
[[ $mpi != copy ]] || copy_mpi

glibc=$(objdump -T "$root/libexec/lorascale" "$root"/lib/*.so* | grep -oE 'GLIBC_[0-9]+(\.[0-9]+)+' | sed 's/GLIBC_//' |
  sort -V | tail -n 1)
torch=$(sed -n "s/^__version__ = ['\"]\([0-9.]*\).*/\1/p" "$(dirname "${place[libtorch_cpu.so]}")/../version.py")
printf '%s\n' "version=$version" "torch=$torch" "mpi=$mpi" "glibc=$glibc" >"$root/libexec/bundle.facts"
find "$root" -type f -name '*.so*' -exec strip --strip-unneeded {} + 2>/dev/null || true

when=$(git -C "$here" log -1 --format=%ct 2>/dev/null || stat -c %Y "$here/CMakeLists.txt")
(cd "$root" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >"$stage/sums")
mv "$stage/sums" "$root/SHA256SUMS"
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$when" -cf - "$name" | gzip -n9 >"$output.part"
mv "$output.part" "$output"
echo "bundle.sh: $output ($(du -h "$output" | cut -f1)); needs torch $torch, glibc $glibc$(
  [[ $mpi == copy ]] || echo ', Open MPI 4')" >&2
