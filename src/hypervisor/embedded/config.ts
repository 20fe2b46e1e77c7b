// What an embedded machine is made of, and the check that it can be made.

import { open, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Facts } from '../../errors.js';
import { PAGE_SIZE } from '../../stream/format.js';
import { badConfiguration, type HypervisorError } from '../port.js';
import { checkRange, checkWorkload, type Workload } from '../workload.js';

/** The guest that Romulus brings along (guest/tick.s). */
export interface BuiltinGuest extends Workload {
  readonly kind: 'builtin';
  /** Of 512 octets, on a disk of its own that begins as zeroes, which the guest writes and checks. Default 0: no disk. */
  readonly diskBlocks?: number;
}

/** Any image that v86 boots. All but the command line are file names. */
export interface ImageGuest {
  readonly kind: 'image';
  readonly bios?: string;
  readonly vgaBios?: string;
  /** A Linux bzImage; needs a BIOS. */
  readonly kernel?: string;
  readonly initrd?: string;
  readonly commandLine?: string;
  /** Boots without a BIOS. */
  readonly multiboot?: string;
  /** In memory, and replicated; filled up with zeroes to a whole sector. What the guest writes never is in the file. */
  readonly hda?: string;
  /** What the guest writes to the floppy is part of every checkpoint, whole. */
  readonly fda?: string;
  /** Read-only: both hosts must have the same image. */
  readonly cdrom?: string;
}

export interface EmbeddedConfig {
  readonly name: string;
  /** A power of two, 4 MiB to 1 GiB. */
  readonly memoryBytes: number;
  readonly guest: BuiltinGuest | ImageGuest;
  /** Default false. */
  readonly acpi?: boolean;
}

/** The images by the role that they have in the machine. */
export const imageRoles = [
  'bios',
  'vgaBios',
  'kernel',
  'initrd',
  'multiboot',
  'hda',
  'fda',
  'cdrom',
] as const;
export type ImageRole = (typeof imageRoles)[number];

/** A configuration that was checked, as the worker gets it. */
export interface MachineSpec {
  readonly name: string;
  readonly memoryBytes: number;
  readonly acpi: boolean;
  readonly commandLine: string;
  readonly images: Readonly<Partial<Record<ImageRole, string>>>;
  /** Of the disk that is replicated, whole sectors; 0: there is none. */
  readonly diskBytes: number;
  /** A target's RAM is empty, not loaded with what its guest boots from. */
  readonly empty: boolean;
}

const MEMORY_BYTES_MIN = 4 * 1024 * 1024;
const MEMORY_BYTES_MAX = 1024 * 1024 * 1024;
/** v86 places an initrd at 64 MiB at most, and rounds smaller memories up. */
const INITRD_MEMORY_BYTES_MIN = 64 * 1024 * 1024;
/** The floppy is part of the context, and a record holds 128 MiB. */
const FLOPPY_BYTES_MAX = 64 * 1024 * 1024;
/** The disk lies in memory; once more beside it while a stream goes on, and for a trial. */
const DISK_BYTES_MAX = 64 * 1024 * 1024;
const SECTOR_BYTES = 512;
/** The guest checks sixteen of them in a tick: of more, each would be checked too seldom. */
const DISK_BLOCKS_MAX = 1 << 16;
/** Where the builtin guest keeps the generations of its pages, the working set behind them (guest/tick.s). */
const GENERATIONS_AT = 0x110000;
const MULTIBOOT_MAGIC = 0x1badb002;
const MULTIBOOT_SEARCH_BYTES = 8192;

// The compiled file is dist/src/hypervisor/embedded/config.js; assets stay in the source tree.
export const builtinGuestFile = fileURLToPath(
  new URL('../../../../src/hypervisor/embedded/guest/tick.elf', import.meta.url),
);

function refuse(key: string, value: string | number, message: string, facts: Facts = {}): HypervisorError {
  return badConfiguration(message, { key, value, ...facts });
}

function builtinCommandLine(guest: BuiltinGuest, memoryBytes: number): string {
  const { diskBlocks = 0 } = guest;
  checkRange('guest.diskBlocks', diskBlocks, 0, DISK_BLOCKS_MAX);
  const { pages, dirty, tickMs } = checkWorkload(guest, 'guest.');
  const tableEnd = Math.ceil((GENERATIONS_AT + pages * 4) / PAGE_SIZE) * PAGE_SIZE;
  const needed = tableEnd + pages * PAGE_SIZE;
  if (needed > memoryBytes) {
    const message = 'the guest’s working set does not fit its memory';
    throw refuse('guest.workingSetPages', pages, message, { memoryBytes, needed });
  }
  return `pages=${pages} dirty=${dirty} tick_ms=${tickMs} disk=${diskBlocks}`;
}

async function checkFile(role: ImageRole, file: string): Promise<number> {
  try {
    const found = await stat(file);
    if (found.isFile() && found.size > 0) return found.size;
  } catch (error) {
    throw badConfiguration(`guest.${role} cannot be read`, { key: `guest.${role}`, value: file }, error);
  }
  throw refuse(`guest.${role}`, file, `guest.${role} is not a file with something in it`);
}

function checkSize(role: ImageRole, file: string, bytes: number, high: number): void {
  if (bytes <= high) return;
  throw refuse(`guest.${role}`, file, `guest.${role} is larger than ${high} octets`, { bytes, high });
}

async function checkMultiboot(file: string): Promise<void> {
  const handle = await open(file);
  try {
    const head = Buffer.alloc(MULTIBOOT_SEARCH_BYTES);
    const { bytesRead } = await handle.read(head, 0, head.length, 0);
    for (let at = 0; at + 12 <= bytesRead; at += 4) {
      if (head.readUInt32LE(at) !== MULTIBOOT_MAGIC) continue;
      if (((MULTIBOOT_MAGIC + head.readUInt32LE(at + 4) + head.readUInt32LE(at + 8)) | 0) === 0) return;
    }
  } finally {
    await handle.close();
  }
  throw refuse('guest.multiboot', file, 'guest.multiboot has no multiboot header in its first 8 KiB');
}

/** @throws HypervisorError BAD_CONFIGURATION and the facts `key`, `value` and what was expected */
export async function checkConfig(config: EmbeddedConfig, empty: boolean): Promise<MachineSpec> {
  const { name, memoryBytes, guest } = config;
  checkRange('memoryBytes', memoryBytes, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX);
  if ((memoryBytes & (memoryBytes - 1)) !== 0) {
    throw refuse('memoryBytes', memoryBytes, 'memoryBytes must be a power of two');
  }
  const base = { name, memoryBytes, acpi: config.acpi ?? false, empty };
  if (guest.kind === 'builtin') {
    const commandLine = builtinCommandLine(guest, memoryBytes);
    await checkFile('multiboot', builtinGuestFile);
    const diskBytes = (guest.diskBlocks ?? 0) * SECTOR_BYTES;
    return { ...base, commandLine, diskBytes, images: { multiboot: builtinGuestFile } };
  }

  if (guest.multiboot === undefined && guest.bios === undefined) {
    throw refuse('guest.bios', '', 'a guest needs a multiboot image or a BIOS to boot from');
  }
  if (guest.kernel !== undefined && guest.bios === undefined) {
    throw refuse('guest.kernel', guest.kernel, 'a bzImage kernel is booted by a BIOS');
  }
  if (guest.initrd !== undefined && memoryBytes < INITRD_MEMORY_BYTES_MIN) {
    throw refuse('memoryBytes', memoryBytes, 'an initrd needs at least 64 MiB of memory');
  }
  const images: Partial<Record<ImageRole, string>> = {};
  let diskBytes = 0;
  for (const role of imageRoles) {
    const file = guest[role];
    if (file === undefined) continue;
    const size = await checkFile(role, file);
    if (role === 'hda') diskBytes = Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES;
    if (role === 'fda') checkSize(role, file, size, FLOPPY_BYTES_MAX);
    images[role] = file;
  }
  checkSize('hda', guest.hda ?? '', diskBytes, DISK_BYTES_MAX);
  if (guest.multiboot !== undefined) await checkMultiboot(guest.multiboot);
  return { ...base, commandLine: guest.commandLine ?? '', diskBytes, images };
}
