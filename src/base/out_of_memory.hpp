// Whether the text of a failure says that memory ran out. CUDA, its libraries and the host's
// allocators have many names for it, and most of them travel as text alone.
#pragma once

#include <string_view>

namespace lorascale {

// `text`: what() of an exception; a backtrace in it does not count. Asynchronous reports of CUDA
// are known as well. A cuBLAS or cuDNN handle that could not be made counts, too: that is how these
// libraries say that the memory of their workspace was not there.
bool tells_of_no_memory(std::string_view text);

}  // namespace lorascale
