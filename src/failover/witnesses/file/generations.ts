// Registers in a directory. A generation is a file, which is there whole or not at all, and never changes:
//
//   web.0000000000000006     pruned after a while
//   web.0000000000000007     the register of the domain web: the highest generation
//   .web.TOKEN.ab12cd.tmp    somebody is about to write
//
//   a file aside, fsync ─▶ is the register what was expected? ─▶ link() to the next generation ─▶ is there a higher one?
//                           └ no: lost                            └ exists: lost                  └ no: fsync, won
//
// link() is what decides: of two who make the same name one succeeds, on any file system. Over NFS a reply may be lost
// and link() fail although it was done: then the name is looked at. What the directory is said to hold may be old there
// (mount it with noac, lookupcache=none): an old view costs time, and is never what wins.
//
// A writer that stood still while generations came and went could link one that is pruned already. So who has linked
// looks for a higher one.

import { randomBytes } from 'node:crypto';
import { link, open, readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { asError, codeOf } from '../../../errors.js';
import { WitnessError } from '../../error.js';
import { sameRegister, written, type Register, type RegisterWrite } from '../../register.js';
import { decodeRegister, encodeRegister, VALUE_BYTES_MAX } from '../value.js';

/** Digits of the largest safe integer. */
const DIGITS = 16;
/** That stay, for whoever looks at a directory after an accident. */
const KEPT_GENERATIONS = 8;
/** A file aside that is older than the newest by this is of a writer that is no more, by the clock of the file system. */
const ABANDONED_MS = 10 * 60_000;
/** While one that was seen is pruned before it is read. */
const READS_MAX = 5;

/** @throws WitnessError UNREACHABLE, DENIED, CORRUPT, BAD_OPTIONS */
export function readNewest(directory: string, domain: string): Promise<Register | null> {
  return told(directory, async () => {
    await checkDirectory(directory);
    const register = await newest(directory, domain);
    // What is told must not be gone after a crash of whoever keeps the directory.
    await syncDirectory(directory);
    return register;
  });
}

/**
 * Resolves when it is tidied up behind it, too. `decided`: called with the outcome as soon as that stands; it cannot fail
 * from then on.
 * @throws WitnessError UNREACHABLE, DENIED, CORRUPT, BAD_OPTIONS
 */
export function writeNext(
  directory: string,
  domain: string,
  write: RegisterWrite,
  decided: (outcome: 'won' | 'lost') => void,
): Promise<void> {
  return told(directory, async () => {
    await checkDirectory(directory);
    const next = written(write);
    const name = `.${domain}.${write.token}.${randomBytes(6).toString('hex')}.tmp`;
    const aside = path.join(directory, name);
    try {
      await writeWhole(aside, encodeRegister(next));
      // Now, when something was just made there: over NFS the view of the directory is new then.
      const asExpected = sameRegister(await newest(directory, domain), write.expected);
      const outcome = asExpected ? await linkNext(directory, domain, aside, next) : 'lost';
      decided(outcome);
      if (outcome === 'won') await prune(directory, domain, aside).catch(() => undefined); // the next write does it
    } finally {
      await removed(aside);
    }
  });
}

/** The second half of a write: by whoever has seen the generation before, however long ago. `aside` holds `next`. */
export async function linkNext(
  directory: string,
  domain: string,
  aside: string,
  next: Register,
): Promise<'won' | 'lost'> {
  if (!(await linked(directory, domain, aside, next))) return 'lost';
  const generations = await generationsOf(directory, domain);
  // Somebody has come after us already, or long before: either way the register is not what we wrote.
  if (generations.some((generation) => generation > next.generation)) return 'lost';
  await syncDirectory(directory);
  return 'won';
}

/** Whether the next generation is ours. @throws Node's system error if it is not known */
async function linked(directory: string, domain: string, aside: string, next: Register): Promise<boolean> {
  const target = fileOf(directory, domain, next.generation);
  try {
    await link(aside, target);
    return true;
  } catch (error) {
    const there = await readGeneration(target, next.generation);
    if (there !== null) return sameRegister(there, next);
    throw error;
  }
}

async function newest(directory: string, domain: string): Promise<Register | null> {
  for (let reads = 0; reads < READS_MAX; reads++) {
    const generations = await generationsOf(directory, domain);
    if (generations.length === 0) return null;
    const generation = Math.max(...generations);
    const register = await readGeneration(fileOf(directory, domain, generation), generation);
    if (register !== null) return register;
  }
  throw new WitnessError('UNREACHABLE', 'the directory shows generations that are not there', {
    directory,
    domain,
  });
}

/** Null: not there. */
async function readGeneration(file: string, generation: number): Promise<Register | null> {
  const octets = await readLimited(file);
  if (octets === null) return null;
  const register = decodeRegister(octets, file);
  if (register.generation === generation) return register;
  throw new WitnessError('CORRUPT', `${file} holds another generation`, { generation: register.generation });
}

async function readLimited(file: string): Promise<Uint8Array | null> {
  try {
    const handle = await open(file, 'r');
    try {
      // One more than may be there: then it is told as too long.
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(VALUE_BYTES_MAX + 1));
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

async function generationsOf(directory: string, domain: string): Promise<number[]> {
  const prefix = `${domain}.`;
  return (await readdir(directory))
    .filter((name) => name.startsWith(prefix) && /^\d{16}$/.test(name.slice(prefix.length)))
    .map((name) => Number(name.slice(prefix.length)));
}

function fileOf(directory: string, domain: string, generation: number): string {
  return path.join(directory, `${domain}.${String(generation).padStart(DIGITS, '0')}`);
}

async function writeWhole(file: string, octets: Uint8Array): Promise<void> {
  const handle = await open(file, 'wx', 0o644);
  try {
    await handle.writeFile(octets);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** What is left over from before. `aside` has just been written, so its time is now. */
async function prune(directory: string, domain: string, aside: string): Promise<void> {
  const generations = await generationsOf(directory, domain);
  const old = generations.sort((a, b) => b - a).slice(KEPT_GENERATIONS);
  for (const generation of old) await removed(fileOf(directory, domain, generation));
  const { mtimeMs: nowMs } = await stat(aside);
  const others = (await readdir(directory)).filter((name) => name.startsWith(`.${domain}.`));
  for (const name of others.filter((each) => each.endsWith('.tmp'))) {
    const file = path.join(directory, name);
    const times = await stat(file).catch(() => null); // its writer has just removed it
    if (times !== null && times.mtimeMs < nowMs - ABANDONED_MS) await removed(file);
  }
}

/** Or not: what stays costs room, not the outcome of a write, and the next write comes by again. */
async function removed(file: string): Promise<void> {
  await rm(file, { force: true }).catch(() => undefined);
}

/**
 * A mount point is empty where nothing is mounted, which would look like registers that nobody has written yet.
 * A directory that is not there cannot.
 * @throws WitnessError BAD_OPTIONS
 */
async function checkDirectory(directory: string): Promise<void> {
  // Not path.join(): of a symbolic link it is the directory that the parent counts of.
  const [own, parent] = await Promise.all([stat(directory), stat(`${directory}/..`)]);
  if (own.dev === parent.dev) return;
  const advice = 'name a directory in it: where it is not mounted it would look empty';
  throw new WitnessError('BAD_OPTIONS', `the directory of the witness is a mount point; ${advice}`, {
    directory,
  });
}

async function told<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    const cause = asError(thrown);
    if (cause instanceof WitnessError) throw cause;
    const denied = ['EACCES', 'EPERM', 'EROFS'].includes(codeOf(cause));
    const message = `the directory of the witness: ${cause.message}`;
    throw new WitnessError(
      denied ? 'DENIED' : 'UNREACHABLE',
      message,
      { directory, error: codeOf(cause) },
      { cause },
    );
  }
}
