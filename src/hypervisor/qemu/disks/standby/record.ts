// What is known of an image after a crash of this host: a file beside it says which point it is of. It is written aside,
// made durable, and put in the place of the one before; so there is always a whole one, or none.
//
//   disk.img   disk.img.romulus    it holds the disk as of that point, and perhaps some of what was written later
//   disk.img                       nobody knows: a first synchronisation is under way, or a domain runs on it
//
// One that is damaged, of another disk or another size, is as good as none.

import { open, readFile, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { codeOf } from '../../../../errors.js';
import { withinAwake } from '../../../../flow/awake.js';
import { HypervisorError, failed } from '../../../port.js';
import type { DiskPoint, ReplicatedDisk } from '../../../port-disks.js';
import { isObject } from '../../monitor/qmp-parser.js';

const VERSION = 1;
const BYTES_MAX = 4096;
/** A disk that takes so long for some octets does not answer. */
const TIMEOUT_MS = 30_000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function recordOf(image: string): string {
  return `${image}.romulus`;
}

/** Null: nobody knows. @throws HypervisorError FAILED, HUNG if the file system does not let it be read */
export async function readRecord(image: string, disk: ReplicatedDisk): Promise<DiskPoint | null> {
  try {
    return pointIn(await timely('read', image, readFile(recordOf(image), 'utf8')), disk);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw unlessOurs(error, image);
  }
}

/** Resolves when it is durable. @throws HypervisorError FAILED, HUNG */
export async function writeRecord(
  image: string,
  { id, bytes }: ReplicatedDisk,
  { streamUuid, epoch }: DiskPoint,
): Promise<void> {
  const text = `${JSON.stringify({ version: VERSION, disk: id, bytes, streamUuid, epoch })}\n`;
  try {
    await timely('write', image, replace(recordOf(image), text));
  } catch (error) {
    throw unlessOurs(error, image);
  }
}

/** Resolves when it is durable that there is none, or that it says nothing. @throws HypervisorError FAILED, HUNG */
export async function forgetRecord(image: string): Promise<void> {
  try {
    await timely('remove', image, remove(recordOf(image)));
  } catch (error) {
    throw unlessOurs(error, image);
  }
}

async function remove(file: string): Promise<void> {
  try {
    await unlink(file);
  } catch (error) {
    // Its directory may be such that nothing in it can be removed.
    if (codeOf(error) !== 'ENOENT') return empty(file, error);
  }
  // Also where it is gone already: whoever has removed it may not have come to this.
  try {
    await syncDirectory(file);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

/** @throws `reason`, if that cannot be either */
async function empty(file: string, reason: unknown): Promise<void> {
  try {
    const handle = await open(file, 'r+');
    try {
      await handle.truncate();
      await handle.datasync();
    } finally {
      await handle.close();
    }
  } catch {
    throw reason;
  }
}

async function replace(file: string, text: string): Promise<void> {
  const aside = `${file}.new`;
  const handle = await open(aside, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.datasync();
  } finally {
    await handle.close();
  }
  await rename(aside, file);
  await syncDirectory(file);
}

async function syncDirectory(file: string): Promise<void> {
  const directory = await open(dirname(file), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** What a record says of this disk; null: nothing. */
export function pointIn(text: string, { id, bytes }: ReplicatedDisk): DiskPoint | null {
  if (text.length > BYTES_MAX || !text.endsWith('}\n')) return null;
  let record: unknown;
  try {
    record = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(record) || record['version'] !== VERSION) return null;
  if (record['disk'] !== id || record['bytes'] !== bytes) return null;
  const { streamUuid, epoch } = record;
  if (typeof streamUuid !== 'string' || !UUID.test(streamUuid)) return null;
  if (typeof epoch !== 'number' || !Number.isSafeInteger(epoch) || epoch < 0) return null;
  return { streamUuid, epoch };
}

function timely<T>(what: string, image: string, work: Promise<T>): Promise<T> {
  const late = () =>
    new HypervisorError('HUNG', `the disk does not ${what} ${recordOf(image)} in time`, {
      file: recordOf(image),
      timeoutMs: TIMEOUT_MS,
    });
  return withinAwake(TIMEOUT_MS, work, late);
}

function unlessOurs(error: unknown, image: string): HypervisorError {
  if (error instanceof HypervisorError) return error;
  const facts = { code: codeOf(error), file: recordOf(image) };
  return failed(`the record of the image ${image} cannot be kept: ${facts.code}`, facts, error);
}
