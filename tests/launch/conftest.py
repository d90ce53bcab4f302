from conftest_launch import bench  # noqa: F401  (a fixture)
