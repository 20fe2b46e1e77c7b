// Sizes as people write them: "64MiB". Binary units only, because "64MB" is read as 64,000,000 by one half of the
// world and as 67,108,864 by the other. A plain number is octets.

const UNIT_BYTES: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

const SIZE_PATTERN = /^(\d{1,16}) ?(B|KiB|MiB|GiB|TiB)$/;

/** Octets, or null if the text is not a size that a safe integer can hold. */
export function parseSize(size: string | number): number | null {
  if (typeof size === 'number') return Number.isSafeInteger(size) && size >= 0 ? size : null;
  const [, count, unit = ''] = SIZE_PATTERN.exec(size) ?? [];
  const unitBytes = UNIT_BYTES[unit];
  if (unitBytes === undefined) return null;
  const octets = Number(count) * unitBytes;
  return Number.isSafeInteger(octets) ? octets : null;
}

/** The shortest exact way to write a size: 67108864 is "64MiB". */
export function formatSize(octets: number): string {
  for (const [unit, unitBytes] of Object.entries(UNIT_BYTES).reverse()) {
    if (octets >= unitBytes && octets % unitBytes === 0) return `${octets / unitBytes}${unit}`;
  }
  return `${octets}B`;
}
