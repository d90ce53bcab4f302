// Optimizers by the names of optimizer.name, for tables of tests.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "optim/adamw.hpp"
#include "optim/lamb.hpp"
#include "optim/sgd.hpp"

namespace lorascale::optim {

inline std::unique_ptr<Optimizer> make_optimizer(const std::string& name,
                                                 std::vector<Segment> segments,
                                                 const at::Tensor& parameters) {
  static const std::map<std::string, decltype(&make_adamw)> makers = {
      {"adamw", make_adamw}, {"sgd", make_sgd}, {"lamb", make_lamb}, {"lars", make_lars}};
  return makers.at(name)(std::move(segments), parameters);
}

}  // namespace lorascale::optim
