// Debian's kernel for virtual machines, downloaded and unpacked, not installed: nothing on this machine changes.

import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { asError } from '../../../errors.js';
import { HypervisorError } from '../../port.js';
import { aptCache, aptGet, dpkgDeb, run } from './programs.js';

/** Depends on the kernel's own package, whose name holds a version. */
const META_PACKAGE = 'linux-image-cloud-amd64';

export interface KernelTree {
  /** The bzImage. */
  readonly kernel: string;
  /** /lib/modules/VERSION */
  readonly modules: string;
}

/**
 * @param work an empty folder of the caller's, who removes it
 * @throws HypervisorError UNSUPPORTED where there is no apt or it knows no such kernel, FAILED where that cannot be had
 */
export async function unpackKernel(work: string, signal: AbortSignal): Promise<KernelTree> {
  const archives = join(work, 'archives');
  const tree = join(work, 'tree');
  await mkdir(archives);
  // As root apt would download as a user of its own, who may not enter our folder.
  const options = [
    '-o',
    'APT::Sandbox::User=root',
    '-o',
    'Acquire::http::Timeout=20',
    '-o',
    'Acquire::Retries=1',
  ];
  try {
    await download(archives, options, signal);
  } catch (thrown) {
    signal.throwIfAborted();
    const first = asError(thrown);
    if (first instanceof HypervisorError && first.code === 'UNSUPPORTED') throw first;
    // No package lists, or lists of packages that are gone. Lists of our own leave the machine's alone, and need no
    // root.
    const own = [...options, ...(await ownLists(work))];
    await run(aptGet, ['-qq', ...own, 'update'], { signal });
    await download(archives, own, signal);
  }
  const [archive] = await readdir(archives);
  if (archive === undefined) throw new HypervisorError('FAILED', 'apt-get brought no kernel.', {});
  await run(dpkgDeb, ['--extract', join(archives, archive), tree], { signal });
  return {
    kernel: await onlyEntry(join(tree, 'boot'), /^vmlinuz-/),
    // Newer packages have everything below usr/.
    modules: await onlyEntry(join(tree, 'lib/modules'), /./).catch(() =>
      onlyEntry(join(tree, 'usr/lib/modules'), /./),
    ),
  };
}

async function download(archives: string, options: readonly string[], signal: AbortSignal): Promise<void> {
  const depends = (await run(aptCache, [...options, 'depends', META_PACKAGE], { signal })).toString();
  const debianPackage = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (debianPackage === undefined) {
    throw new HypervisorError(
      'FAILED',
      `apt knows no ${META_PACKAGE}: the test guest needs a Debian (amd64).`,
      {
        debianPackage: META_PACKAGE,
      },
    );
  }
  await run(aptGet, ['-qq', ...options, 'download', debianPackage], { signal, cwd: archives });
}

async function ownLists(work: string): Promise<string[]> {
  const lists = join(work, 'lists');
  const cache = join(work, 'cache');
  await mkdir(join(lists, 'partial'), { recursive: true });
  await mkdir(join(cache, 'archives/partial'), { recursive: true });
  return ['-o', `Dir::State::Lists=${lists}`, '-o', `Dir::Cache=${cache}`];
}

async function onlyEntry(folder: string, name: RegExp): Promise<string> {
  const found = (await readdir(folder)).filter((entry) => name.test(entry));
  const [entry] = found;
  if (entry === undefined || found.length > 1) {
    throw new HypervisorError('FAILED', 'The kernel’s package is not laid out as expected.', {
      folder,
      found: found.join(' '),
    });
  }
  return join(folder, entry);
}
