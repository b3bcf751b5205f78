"""4D: point clouds, their metrics, and the page that shows them. Torch-free."""
