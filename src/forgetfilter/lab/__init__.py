"""Research: testbed, strategies, studies, metrics. Nothing outside imports it."""
