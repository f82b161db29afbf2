"""Several processes on one job: how they join, rows dealt among them, weights kept in parts."""
