#include "adapters/full/full.hpp"

#include "adapters/formats/weights_file.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {

std::unique_ptr<TrainableParameters> attach_full(const std::vector<nn::ParameterSlot>& slots) {
  LS_ASSERT(!slots.empty());
  TrainableParameters::GroupSpec matrices{{"matrix", 0, 0, 1.0, true}, {}};
  TrainableParameters::GroupSpec vectors{{"vector", 0, 0, 1.0, false, true}, {}};
  const auto spec_of = [&](const nn::ParameterSlot& slot) -> auto& {
    return slot.value->dim() > 1 ? matrices : vectors;
  };
  for (const auto& slot : slots) {
    for (const auto& part : slot.parts) {
      spec_of(slot).entries.push_back({part.key, part.shape});
    }
  }
  auto parameters = std::make_unique<TrainableParameters>(std::vector{matrices, vectors},
                                                          slots.front().value->device());
  // The parts of a slot lie back to back in the flat vector, as they do in the weight.
  std::size_t next_matrix = 0;
  std::size_t next_vector = matrices.entries.size();
  for (const auto& slot : slots) {
    auto& next = slot.value->dim() > 1 ? next_matrix : next_vector;
    const auto offset = parameters->entries()[next].offset;
    next += slot.parts.size();
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, offset, slot.value->numel()).view(slot.value->sizes());
    };
    at::Tensor master = view(parameters->master());
    master.copy_(*slot.value);
    *slot.grad = view(parameters->gradient());
    if (slot.value->scalar_type() == at::kFloat) {
      *slot.value = master;
    } else {
      parameters->keep_rounded(*slot.value, std::move(master));
    }
  }
  return parameters;
}

namespace {

class FullAdapter : public Adapter {
 public:
  explicit FullAdapter(const AdaptedModel& model)
      : written_(model.file_slots), parameters_(attach_full(model.slots)) {}

  TrainableParameters& parameters() override { return *parameters_; }
  [[nodiscard]] std::string_view result_name() const override { return "model"; }
  void write(const std::filesystem::path& folder, const ExportContext& context) const override {
    if (context.write_model) {
      context.write_model(folder);
      return;
    }
    write_weights(folder, written_);
    context.write_companions(folder, written_.front().value->scalar_type());
  }

 private:
  std::vector<nn::ParameterSlot> written_;
  std::unique_ptr<TrainableParameters> parameters_;
};

}  // namespace

std::unique_ptr<Adapter> make_full_adapter(const config::AdapterSection& /*section*/,
                                           const AdaptedModel& model, std::uint64_t /*seed*/) {
  return std::make_unique<FullAdapter>(model);
}

}  // namespace lorascale::adapters
