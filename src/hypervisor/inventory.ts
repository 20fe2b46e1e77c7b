// What a domain is made of, as facts that must be the same on both sides, for the state of one to be understood by the
// other: each hypervisor names its own. A fact is a text, or a list of things, one in each line, in their order.
//
//   "machine"  pc-q35-7.2               primary            secondary
//   "devices"  isa-serial               isa-serial         isa-serial
//              e1000 card-lan at 02.0   e1000 card-lan …   ── missing: "devices: e1000 card-lan … only on the primary"

import { createHash } from 'node:crypto';

/** The facts, by their names. */
export type Inventory = Readonly<Record<string, string>>;

/** One fact that is not the same; null: a side does not have it. */
export interface Difference {
  readonly name: string;
  readonly primary: string | null;
  readonly secondary: string | null;
}

/** Bounds: facts, characters of a name, octets of a text. Together they fit into one message of the channel. */
export const INVENTORY_FACTS_MAX = 16;
export const INVENTORY_NAME_MAX = 32;
export const INVENTORY_TEXT_BYTES_MAX = 3 * 1024;

/** Of a list that differs, this many are told. */
const LINES_TOLD_MAX = 5;
const DIGEST_LINE_BYTES_MAX = 100;

export function compareInventories(primary: Inventory, secondary: Inventory): Difference[] {
  const names = new Set([...Object.keys(primary), ...Object.keys(secondary)]);
  return [...names]
    .map((name) => ({ name, primary: factOf(primary, name), secondary: factOf(secondary, name) }))
    .filter((difference) => difference.primary !== difference.secondary);
}

/** "machine: pc-q35-7.2 on the primary, pc-i440fx-7.2 on the secondary"; of lists, only what is not on both sides. */
export function describeDifference({ name, primary, secondary }: Difference): string {
  const here = linesOf(primary);
  const there = linesOf(secondary);
  const mine = without(here, there);
  const theirs = without(there, here);
  if (mine.length === 0 && theirs.length === 0) return `${name}: in another order on the secondary`;
  if (here.length <= 1 && there.length <= 1) {
    return `${name}: ${here[0] ?? 'none'} on the primary, ${there[0] ?? 'none'} on the secondary`;
  }
  const only = [
    ...(mine.length === 0 ? [] : [`${enumerate(mine)} only on the primary`]),
    ...(theirs.length === 0 ? [] : [`${enumerate(theirs)} only on the secondary`]),
  ];
  return `${name}: ${only.join('; ')}`;
}

/** The text of a list, within its bound: of one that is too long, its beginning, and a digest of all of it. */
export function inventoryText(lines: readonly string[]): string {
  const text = lines.join('\n');
  if (Buffer.byteLength(text) <= INVENTORY_TEXT_BYTES_MAX) return text;
  const kept: string[] = [];
  let room = INVENTORY_TEXT_BYTES_MAX - DIGEST_LINE_BYTES_MAX;
  for (const line of lines) {
    room -= Buffer.byteLength(line) + 1;
    if (room < 0) break;
    kept.push(line);
  }
  const digest = createHash('sha256').update(text).digest('hex');
  return [...kept, `${lines.length - kept.length} more (${digest})`].join('\n');
}

function enumerate(lines: readonly string[]): string {
  const told = lines.slice(0, LINES_TOLD_MAX).join(', ');
  return lines.length > LINES_TOLD_MAX ? `${told} and ${lines.length - LINES_TOLD_MAX} more` : told;
}

/** A fact of nothing is as good as none. */
function factOf(inventory: Inventory, name: string): string | null {
  return Object.hasOwn(inventory, name) ? inventory[name] || null : null;
}

function linesOf(text: string | null): string[] {
  return text === null ? [] : text.split('\n');
}

/** What is left of `lines` when each of `others` has taken one like it away. */
function without(lines: readonly string[], others: readonly string[]): string[] {
  const rest = [...others];
  return lines.filter((line) => {
    const at = rest.indexOf(line);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}
