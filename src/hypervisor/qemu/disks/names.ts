// What things of ours are called in QEMU's block layer: by the number of the disk that they are for, since a name of a
// node has 31 octets at most. Whoever finds them in a QEMU knows whose they are.
//
//   guest ─▶ filter ─┬─▶ the disk's node ◀── reader (an export, while it is copied)
//              (job) └─▶ target ── NBD ──▶ us

/** What ours begin with, whatever they are. */
export const OURS = 'romulus-';

const TARGET = `${OURS}target-`;
const FILTER = `${OURS}filter-`;
const JOB = `${OURS}mirror-`;

export interface MirrorNames {
  /** The node that is our export, as QEMU sees it. */
  readonly target: string;
  readonly filter: string;
  readonly job: string;
}

export function mirrorNames(index: number): MirrorNames {
  return { target: `${TARGET}${index}`, filter: `${FILTER}${index}`, job: `${JOB}${index}` };
}

export function readerName(index: number): string {
  return `${OURS}reader-${index}`;
}

/** The number of the disk that this filter is for; null: it is no filter of ours. */
export function filterIndexOf(node: string): number | null {
  return indexBehind(node, FILTER);
}

/** The number of the disk that this job, or this target, is for; null: it is none of ours. */
export function mirrorIndexOf(name: string): number | null {
  return indexBehind(name, JOB) ?? indexBehind(name, TARGET);
}

function indexBehind(name: string, prefix: string): number | null {
  const index = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : NaN;
  return Number.isInteger(index) ? index : null;
}
