// safetensors_reader
