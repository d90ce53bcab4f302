// safetensors_writer
