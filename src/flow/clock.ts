// The one clock of the services: monotonic, in milliseconds, the same for all processes of a host.

export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}
