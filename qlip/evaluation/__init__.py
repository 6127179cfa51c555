"""What QLIP buys: biases, benchmarks, sweeps and reports, measured the same way on every arm."""
