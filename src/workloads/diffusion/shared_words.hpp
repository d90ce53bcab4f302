// Words that the captions of a data set have in common: what a prompt calls the learnt concept by,
// as "sks" or a style's name.
#pragma once

#include <string>
#include <vector>

namespace lorascale::workloads::diffusion {

// Those of nine captions in ten, in the order of the first caption that has them all; articles and
// the like are left out. Small and large letters of English are the same. Empty where fewer than
// three captions could tell.
std::vector<std::string> shared_words(const std::vector<std::string>& captions);

// Whether the prompt has all of the words.
bool has_words(const std::string& prompt, const std::vector<std::string>& words);
// The prompt without any of them; empty where nothing that says something is left.
std::string without_words(const std::string& prompt, const std::vector<std::string>& words);

}  // namespace lorascale::workloads::diffusion
