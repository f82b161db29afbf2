"""The only room that imports torch: load, train, restore, measure."""
