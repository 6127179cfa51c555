"""The mathematics, on torch alone: quadtree, patches, positions."""
