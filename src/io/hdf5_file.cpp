// hdf5_file
