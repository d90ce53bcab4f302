#include "models/diffusion/ldm_names.hpp"

#include <array>
#include <charconv>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.hpp"

namespace lorascale::models::diffusion {
namespace {

using Pairs = std::span<const std::pair<std::string_view, std::string_view>>;

constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kResnet = {{
    {"norm1", "in_layers.0"},
    {"conv1", "in_layers.2"},
    {"time_emb_proj", "emb_layers.1"},
    {"norm2", "out_layers.0"},
    {"conv2", "out_layers.3"},
    {"conv_shortcut", "skip_connection"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kUnetTop = {{
    {"conv_in", "input_blocks.0.0"},
    {"conv_norm_out", "out.0"},
    {"conv_out", "out.2"},
    {"time_embedding.linear_1", "time_embed.0"},
    {"time_embedding.linear_2", "time_embed.2"},
    {"add_embedding.linear_1", "label_emb.0.0"},
    {"add_embedding.linear_2", "label_emb.0.2"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kVaeParts = {{
    {"conv_norm_out", "norm_out"},
    {"conv_shortcut", "nin_shortcut"},
    {"group_norm", "norm"},
    {"to_q", "q"},
    {"to_k", "k"},
    {"to_v", "v"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kOpenClip = {{
    {"layer_norm1", "ln_1"},
    {"layer_norm2", "ln_2"},
    {"mlp.fc1", "mlp.c_fc"},
    {"mlp.fc2", "mlp.c_proj"},
    {"self_attn.out_proj", "attn.out_proj"},
    {"self_attn.q_proj.", "attn.in_proj_"},
    {"self_attn.k_proj.", "attn.in_proj_"},
    {"self_attn.v_proj.", "attn.in_proj_"},
}};

// Takes `start` and, where there is one, the dot behind it off the front.
bool take(std::string_view& text, std::string_view start) {
  if (!text.starts_with(start)) {
    return false;
  }
  const auto rest = text.substr(start.size());
  if (!start.ends_with('.') && !rest.empty() && rest.front() != '.') {
    return false;  // a longer word
  }
  text = rest;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
  }
  return true;
}

std::int64_t take_number(std::string_view& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  LS_ASSERT(error == std::errc());
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.starts_with('.')) {
    text.remove_prefix(1);
  }
  return number;
}

// The first of `pairs` that `rest` begins with, in its other form; `rest` as it is where none does.
std::string renamed(std::string_view rest, Pairs pairs) {
  for (const auto& [from, to] : pairs) {
    auto left = rest;
    if (take(left, from)) {
      const bool glued = to.ends_with('_');
      return std::string(to) + (glued || left.empty() ? "" : ".") + std::string(left);
    }
  }
  return std::string(rest);
}

std::string numbered(std::string_view start, std::int64_t block, std::int64_t part) {
  return std::string(start) + "." + std::to_string(block) + "." + std::to_string(part) + ".";
}

}  // namespace

std::string unet_name_in_ldm(const std::string& name, std::int64_t layers_per_level,
                             const std::vector<bool>& has_attention) {
  const std::string prefix = "model.diffusion_model.";
  const auto step = layers_per_level + 1;
  std::string_view rest = name;
  if (take(rest, "down_blocks.")) {
    const auto level = take_number(rest);
    if (take(rest, "downsamplers.0.conv")) {
      return prefix + numbered("input_blocks", step * (level + 1), 0) + "op." + std::string(rest);
    }
    const bool attention = take(rest, "attentions.");
    LS_ASSERT(attention || take(rest, "resnets."));
    const auto block = step * level + take_number(rest) + 1;
    return prefix + numbered("input_blocks", block, attention ? 1 : 0) +
           (attention ? std::string(rest) : renamed(rest, kResnet));
  }
  if (take(rest, "up_blocks.")) {
    const auto level = take_number(rest);
    if (take(rest, "upsamplers.0.conv")) {
      const auto from_below = has_attention.size() - 1 - static_cast<std::size_t>(level);
      return prefix +
             numbered("output_blocks", step * level + layers_per_level,
                      has_attention[from_below] ? 2 : 1) +
             "conv." + std::string(rest);
    }
    const bool attention = take(rest, "attentions.");
    LS_ASSERT(attention || take(rest, "resnets."));
    const auto block = step * level + take_number(rest);
    return prefix + numbered("output_blocks", block, attention ? 1 : 0) +
           (attention ? std::string(rest) : renamed(rest, kResnet));
  }
  if (take(rest, "mid_block.")) {
    const bool attention = take(rest, "attentions.");
    LS_ASSERT(attention || take(rest, "resnets."));
    const auto number = take_number(rest);
    return prefix + "middle_block." + std::to_string(attention ? 1 : 2 * number) + "." +
           (attention ? std::string(rest) : renamed(rest, kResnet));
  }
  return prefix + renamed(rest, kUnetTop);
}

std::string vae_name_in_ldm(const std::string& name, std::int64_t levels) {
  std::string prefix = "first_stage_model.";
  std::string_view rest = name;
  for (const auto* side : {"encoder.", "decoder."}) {
    if (take(rest, side)) {
      prefix += side;
    }
  }
  const auto in_level = [&](const char* word, std::int64_t level) {
    const auto start = prefix + word + "." + std::to_string(level) + ".";
    if (take(rest, "resnets.")) {
      const auto number = take_number(rest);
      return start + "block." + std::to_string(number) + "." + renamed(rest, kVaeParts);
    }
    const bool down = take(rest, "downsamplers.0.");
    LS_ASSERT(down || take(rest, "upsamplers.0."));
    return start + (down ? "downsample." : "upsample.") + std::string(rest);
  };
  if (take(rest, "down_blocks.")) {
    const auto level = take_number(rest);
    return in_level("down", level);
  }
  if (take(rest, "up_blocks.")) {
    const auto level = take_number(rest);
    return in_level("up", levels - 1 - level);
  }
  if (take(rest, "mid_block.resnets.")) {
    const auto number = take_number(rest);
    return prefix + "mid.block_" + std::to_string(number + 1) + "." + renamed(rest, kVaeParts);
  }
  if (take(rest, "mid_block.attentions.0.")) {
    if (take(rest, "to_out.0")) {
      return prefix + "mid.attn_1.proj_out." + std::string(rest);
    }
    return prefix + "mid.attn_1." + renamed(rest, kVaeParts);
  }
  return prefix + renamed(rest, kVaeParts);
}

std::string text_name_in_open_clip(const std::string& name) {
  std::string_view rest = name;
  if (take(rest, "text_projection")) {
    return "text_projection";
  }
  LS_ASSERT(take(rest, "text_model."));
  if (take(rest, "encoder.layers.")) {
    const auto layer = take_number(rest);
    return "transformer.resblocks." + std::to_string(layer) + "." + renamed(rest, kOpenClip);
  }
  if (take(rest, "embeddings.position_embedding")) {
    return "positional_embedding";
  }
  if (take(rest, "embeddings.token_embedding")) {
    return "token_embedding." + std::string(rest);
  }
  LS_ASSERT(take(rest, "final_layer_norm"));
  return "ln_final." + std::string(rest);
}

}  // namespace lorascale::models::diffusion
