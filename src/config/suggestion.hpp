// What an unknown key probably meant, out of the tables of options and aliases.
#pragma once

#include <string>

namespace lorascale::config {

// The end of a message: "; did you mean 'optimizer.lr'?", or where to look where nothing is near.
std::string suggestion_for(const std::string& path);

}  // namespace lorascale::config
