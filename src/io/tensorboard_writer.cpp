// tensorboard_writer
