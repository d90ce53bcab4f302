// checkpoint_folder
