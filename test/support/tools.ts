// Programs that tests use and a fresh machine lacks. A Debian package is unpacked, not installed: nothing on the
// machine changes, and no service that the package holds is started.

import { execFile } from 'node:child_process';
import { access, constants, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Where a project's tools keep what they fetched: `npm ci` empties it. Seen from dist/test/support. */
const cache = fileURLToPath(new URL('../../../node_modules/.cache/romulus-tools/', import.meta.url));

const APT_TIMEOUT_MS = 120_000;
const INSTALL_TIMEOUT_MS = 280_000;
const APT_OPTIONS = [
  // The archive is fetched into a directory that apt's own user may not enter.
  ...['-o', 'APT::Sandbox::User=root'],
  ...['-o', 'Acquire::http::Timeout=20'],
  ...['-o', 'Acquire::Retries=1'],
];

/**
 * The path of `command`: where it is installed, or where its Debian package was unpacked. Null, and a loud line on
 * standard output, where neither is possible: only then may a test skip itself.
 */
export async function ensureTool(command: string, debianPackage: string): Promise<string | null> {
  const installed = await findIn((process.env['PATH'] ?? '').split(path.delimiter), command);
  if (installed !== null) return installed;
  try {
    const found = await findUnpacked(command, debianPackage, ['usr/bin', 'usr/sbin', 'bin']);
    await run(found, ['--version'], { timeout: 10_000 });
    return found;
  } catch (thrown) {
    saySkipped(command, thrown);
    return null;
  }
}

/** As ensureTool, of a file that stands in a folder of the package that is in nobody's PATH. */
export async function ensureFile(
  name: string,
  folder: string,
  debianPackage: string,
): Promise<string | null> {
  try {
    return await findUnpacked(name, debianPackage, [folder]);
  } catch (thrown) {
    saySkipped(name, thrown);
    return null;
  }
}

function saySkipped(name: string, thrown: unknown): void {
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  console.log(`\n    SKIPPED: ${name} is not here and could not be had from Debian: ${why}\n`);
}

/** The file in the package, which is fetched and unpacked unless it was before. */
async function findUnpacked(
  name: string,
  debianPackage: string,
  folders: readonly string[],
): Promise<string> {
  const unpacked = path.join(cache, debianPackage);
  const directories = folders.map((folder) => path.join(unpacked, folder));
  await mkdir(cache, { recursive: true });
  if ((await findIn(directories, name)) === null) await unpack(debianPackage, cache, unpacked);
  const found = await findIn(directories, name);
  if (found === null) throw new Error(`${debianPackage} has no ${name}`);
  return found;
}

export async function findIn(directories: readonly string[], command: string): Promise<string | null> {
  for (const directory of directories) {
    const candidate = path.join(directory, command);
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not in this one.
    }
  }
  return null;
}

async function unpack(debianPackage: string, cache: string, target: string): Promise<void> {
  const work = await mkdtemp(path.join(cache, 'unpacking-'));
  try {
    await downloadPackages([debianPackage], work);
    const archive = (await readdir(work)).find((name) => name.endsWith('.deb'));
    if (archive === undefined) throw new Error(`apt-get brought no archive of ${debianPackage}`);
    const tree = path.join(work, 'tree');
    await run('dpkg', ['-x', path.join(work, archive), tree]);
    // Whole or not at all: another run may be at it, too, and its tree is as good.
    await rename(tree, target).catch(async (thrown: unknown) => {
      await access(target).catch(() => {
        throw thrown;
      });
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Fetches Debian's archives of these packages (not of what they depend on) into the directory. */
export async function downloadPackages(
  packages: readonly string[],
  directory: string,
  signal?: AbortSignal,
): Promise<void> {
  const apt = (...args: string[]) =>
    run('apt-get', [...APT_OPTIONS, '-qq', ...args], {
      cwd: directory,
      timeout: APT_TIMEOUT_MS,
      ...(signal && { signal }),
    });
  try {
    await apt('download', ...packages);
  } catch (thrown) {
    // A fresh container has no package lists, an old one has lists of packages that are gone.
    if (process.getuid?.() !== 0 || signal?.aborted === true) throw thrown;
    await apt('update');
    await apt('download', ...packages);
  }
}

/**
 * The path of a program that must be installed, because it needs more than itself (firmware, libraries). Root has it
 * installed, unless ROMULUS_TEST_INSTALL=0 says no. Null, and a loud line, where it is not to be had.
 */
export async function ensureInstalled(command: string, debianPackage: string): Promise<string | null> {
  const directories = (process.env['PATH'] ?? '').split(path.delimiter);
  const installed = await findIn(directories, command);
  if (installed !== null) return installed;
  let why = `install ${debianPackage}`;
  if (process.getuid?.() === 0 && process.env['ROMULUS_TEST_INSTALL'] !== '0') {
    const apt = (...args: string[]) => run('apt-get', ['-qq', ...args], { timeout: INSTALL_TIMEOUT_MS });
    try {
      await apt('update');
      await apt('install', '--yes', '--no-install-recommends', debianPackage);
      const found = await findIn(directories, command);
      if (found !== null) return found;
      why = `${debianPackage} has no ${command}`;
    } catch (thrown) {
      why = thrown instanceof Error ? thrown.message : String(thrown);
    }
  }
  console.log(`\n    SKIPPED: ${command} is not here: ${why}\n`);
  return null;
}
