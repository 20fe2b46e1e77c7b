// What Xen does when a PV guest's page becomes a page table: it looks through all entries and all tables below, holds
// each to be of the type that its place demands, and puts its own mappings into the slots that it keeps for itself.
// A page is a page table or writable to the guest, never both.

import { PageType } from '../../src/stream/format.js';
import type { GuestWidth } from '../../src/stream/records/pv.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { type MemoryMachine, XEN_COMPAT_M2P_MFN, XEN_M2P_MFN } from './machine.js';

const PRESENT = 1;
const WRITABLE = 2;
const SUPERPAGE = 0x80;
/** Present, writable, accessed, dirty: what Xen's own entries look like. */
const XEN_FLAGS = 0x63;
const L4_XEN_FIRST = 256;
const L4_XEN_LAST = 271;
const L3_GUEST_ENTRIES = 4;
const L2_XEN_FIRST = 428;
const ENTRIES = 512;
/** Added to L1 … L4 for pinned tables. */
const PIN = PageType.L1TAB_PIN - PageType.L1TAB;

/** The level of the table that Xen holds a frame to be; 0: none. */
export function levelOf(type: number): number {
  return type === PageType.NOTAB ? 0 : type & 7;
}

/**
 * Makes a frame a page table of the level, and all below it what they must be. A domain whose tables are refused is
 * left half done: it can only be destroyed.
 * @throws HypervisorError BAD_CONTEXT
 */
export function promoteTable(
  machine: MemoryMachine,
  domain: number,
  width: GuestWidth,
  mfn: number,
  level: number,
): void {
  if (!machine.isOwnedBy(mfn, domain)) throw refused('a page table that is not the domain’s', { mfn, level });
  const is = levelOf(machine.types[mfn] ?? 0);
  if (is === level) return;
  if (is !== 0) throw refused(`an L${is} table used as an L${level}`, { mfn, level, is });
  if ((machine.writable[mfn] ?? 0) > 0)
    throw refused('a page table that the guest can write to', { mfn, level });
  machine.types[mfn] = level;
  const words = machine.words(mfn);
  // A PAE guest's top table has four entries.
  const entries = width === 4 && level === 3 ? L3_GUEST_ENTRIES : ENTRIES;
  for (let i = 0; i < entries; i++) {
    if (width === 8 && level === 4 && i >= L4_XEN_FIRST && i <= L4_XEN_LAST) continue;
    const low = words[i * 2] ?? 0;
    if ((low & PRESENT) === 0) continue;
    const high = words[i * 2 + 1] ?? 0;
    const target = ((low >>> 12) | (high << 20)) >>> 0;
    const facts = { mfn, level, index: i, target };
    if (level > 1 && (low & SUPERPAGE) !== 0) throw refused('a superpage', facts);
    if (!machine.isOwnedBy(target, domain)) throw refused('an entry that maps a foreign frame', facts);
    if (level > 1) {
      promoteTable(machine, domain, width, target, level - 1);
      if (width === 4 && level === 3 && i === L3_GUEST_ENTRIES - 1) fillCompatL2(machine.words(target));
    } else if ((low & WRITABLE) !== 0) {
      if (levelOf(machine.types[target] ?? 0) !== 0) throw refused('a page table mapped writable', facts);
      machine.writable[target] = (machine.writable[target] ?? 0) + 1;
    }
  }
  if (width === 8 && level === 4) {
    for (let i = L4_XEN_FIRST; i <= L4_XEN_LAST; i++) writeEntry(words, i, XEN_M2P_MFN, XEN_FLAGS);
  } else if (width === 4 && level === 3) {
    for (let i = L3_GUEST_ENTRIES; i < 8; i++) writeEntry(words, i, XEN_M2P_MFN, PRESENT);
  }
}

/** MMUEXT_PIN_Ln_TABLE. @throws HypervisorError BAD_CONTEXT */
export function pinTable(
  machine: MemoryMachine,
  domain: number,
  width: GuestWidth,
  mfn: number,
  level: number,
): void {
  if (level < 1 || level > 4 || (width === 4 && level === 4)) {
    throw refused(`no L${level} table in this guest`, { mfn, level });
  }
  promoteTable(machine, domain, width, mfn, level);
  machine.types[mfn] = level + PIN;
}

/** The table that maps the top 1 GiB of a 32-bit guest has the compat m2p at its end, as superpages. */
function fillCompatL2(words: Uint32Array): void {
  for (let i = L2_XEN_FIRST; i < ENTRIES; i++) {
    writeEntry(words, i, XEN_COMPAT_M2P_MFN + (i - L2_XEN_FIRST) * 512, XEN_FLAGS | SUPERPAGE);
  }
}

function writeEntry(words: Uint32Array, index: number, mfn: number, flags: number): void {
  words[index * 2] = (mfn << 12) | flags;
  words[index * 2 + 1] = mfn >>> 20;
}

function refused(what: string, facts: Readonly<Record<string, number>>): HypervisorError {
  return new HypervisorError('BAD_CONTEXT', `Xen refuses ${what}`, facts);
}
