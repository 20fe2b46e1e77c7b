// What stands where a user wants a stream file to be read from or written to. Symbolic links are followed by hand: the
// end of the chain is what is replaced, the links stay; and a link of /proc to an open descriptor of this process names
// that descriptor, as "-" does (opened again it would begin anew, and a socket cannot be opened at all).
//
//   -            ─▶ descriptor 0 or 1         link ─▶ link ─▶ … ─▶ what is there, or a name that is free
//   /dev/stdout  ─▶ /proc/self/fd/1  ─▶ descriptor 1

import { fstat, type Stats } from 'node:fs';
import { lstat, readFile, readlink, realpath } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { isatty } from 'node:tty';
import { promisify } from 'node:util';
import { codeOf } from '../errors.js';
import { SaveError } from './error.js';

/** As many as Linux follows. */
const LINKS_MAX = 40;
const SECTOR_BYTES = 512;

export type PlaceKind = 'free' | 'file' | 'folder' | 'fifo' | 'socket' | 'block' | 'character' | 'terminal';

export interface Place {
  readonly kind: PlaceKind;
  /** The end of the chain of links. */
  readonly path: string;
  /** A descriptor of this process that is it. */
  readonly fd: number | null;
  /** null where nothing is yet. */
  readonly stat: Stats | null;
}

/** @param standard what "-" stands for: standard input or standard output */
export async function findPlace(path: string, standard: 0 | 1): Promise<Place> {
  if (path === '-') return ofDescriptor(standard, path);
  let at = path;
  for (let links = 0; links <= LINKS_MAX; links += 1) {
    const stat = await lstat(at).catch((error: unknown) => {
      if (codeOf(error) === 'ENOENT') return null;
      throw error;
    });
    if (stat?.isSymbolicLink() !== true) {
      return { kind: stat === null ? 'free' : kindOf(stat), path: at, fd: null, stat };
    }
    const folder = await realpath(dirname(at));
    const descriptor = Number(basename(at));
    if (isDescriptorFolder(folder) && Number.isInteger(descriptor)) return ofDescriptor(descriptor, path);
    at = resolve(folder, await readlink(at));
  }
  throw new SaveError('BAD_PLACE', `${path} is a symbolic link without an end`, { path });
}

/** One file, device, FIFO or socket under two names. */
export function isSame(one: Stats | null, other: Stats | null): boolean {
  if (one === null || other === null) return false;
  const device = one.isBlockDevice() && other.isBlockDevice() && one.rdev === other.rdev;
  return device || (one.dev === other.dev && one.ino === other.ino);
}

/** What a block device holds, in octets: stat does not say it. */
export async function blockDeviceBytes(path: string, { rdev }: Stats): Promise<number> {
  const major = (rdev >>> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  try {
    const sectors = Number(await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8'));
    return sectors * SECTOR_BYTES;
  } catch (cause) {
    const message = `nobody says how large the device ${path} (${major}:${minor}) is: it is not in /sys/dev/block`;
    throw new SaveError('BAD_PLACE', message, { path, major, minor }, { cause });
  }
}

async function ofDescriptor(fd: number, path: string): Promise<Place> {
  const stat = await promisify(fstat)(fd);
  return { kind: isatty(fd) ? 'terminal' : kindOf(stat), path, fd, stat };
}

function isDescriptorFolder(folder: string): boolean {
  const match = /^\/proc\/(\d+)\/(task\/\d+\/)?fd$/.exec(folder);
  return match !== null && Number(match[1]) === process.pid;
}

function kindOf(stat: Stats): PlaceKind {
  if (stat.isDirectory()) return 'folder';
  if (stat.isFIFO()) return 'fifo';
  if (stat.isSocket()) return 'socket';
  if (stat.isBlockDevice()) return 'block';
  return stat.isCharacterDevice() ? 'character' : 'file';
}
