// What a LoRA's file says of the pictures that it learnt from, in sd-scripts' words: interfaces
// show it, and offer the tags that were most used as words for a prompt.
#pragma once

#include <map>
#include <string>

#include "data/pictures/picture_dataset.hpp"

namespace lorascale::workloads::diffusion {

// Keys of the file's metadata. Tags are what commas part in captions, in small letters; counted
// once a picture, those of regularisation left out.
std::map<std::string, std::string> dataset_facts(const data::PictureDataset& pictures);

}  // namespace lorascale::workloads::diffusion
