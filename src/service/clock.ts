// The machine's monotonic clock. One clock for all processes of a host, so that readings of two processes compare.

/** Milliseconds, with fractions, since an arbitrary moment that is the same for every process of this host. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
