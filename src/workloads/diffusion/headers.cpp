// `plan --headers-only` for models that make pictures.
#include "base/units.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "nn/dtypes.hpp"
#include "workloads/diffusion/diffusion.hpp"
#include "workloads/diffusion/model_tokenizer.hpp"
#include "workloads/diffusion/new_word.hpp"
#include "workloads/diffusion/pipeline_of_config.hpp"

namespace lorascale::workloads::diffusion {

HeaderReport check_headers(const config::RunConfig& config) {
  const auto model =
      model_of(config, models::diffusion::read_pipeline_shapes(
                           source_of(config.model), nn::float_type_named(config.model.dtype)));
  const auto& pipeline = model->pipeline().config();
  const auto word = trained_word(config, pipeline);
  auto settings = pictures_of(config, pipeline, true);
  settings.rows.new_word = word.forms;
  const data::PictureDataset training(config.data.train, settings);
  if (config.data.validation) {
    const data::PictureDataset validation(*config.data.validation,
                                          pictures_of(config, pipeline, false));
    data::require_one_tokenizer(training.file(), validation.file());
  }
  require_tokenizer_of_model(training.file(), config.model.path);
  require_word(word, training, config);
  adapters::check_adapter(config.adapter, adapted_model(*model, config));
  HeaderReport report;
  report.model = model->family();
  report.data = counted(training.file().images(), "picture") + ", header";
  report.most_rows = training.rows();
  return report;
}

}  // namespace lorascale::workloads::diffusion
