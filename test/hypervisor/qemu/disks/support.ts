// What the tests of disks share: QEMU's programs, images, and a standby's disk that what was told is done to.

import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { until } from '../../../support/until.js';
import { WriteKind, dataAt, type Extents, type Slab } from '../../../../src/disk/extents.js';
import { NbdError, type NbdErrorCode } from '../../../../src/hypervisor/qemu/disks/nbd/error.js';
import { NbdExports, type NbdExportEvent } from '../../../../src/hypervisor/qemu/disks/nbd/exports.js';
import type { EpochWrites, NbdExportsOptions } from '../../../../src/hypervisor/qemu/disks/nbd/exports.js';
import { QmpClient } from '../../../../src/hypervisor/qemu/monitor/qmp.js';
import type { Cleanup } from '../../../support/cleanup.js';
import { ensureInstalled } from '../../../support/tools.js';

export const MIB = 1024 * 1024;
const run = promisify(execFile);

/** For `before`: skips the suite, loudly, where QEMU's tools are not to be had. */
export async function needQemuTools(context: Mocha.Context): Promise<void> {
  context.timeout(300_000);
  for (const tool of ['qemu-io', 'qemu-nbd', 'qemu-img', 'qemu-storage-daemon']) {
    const source = tool === 'qemu-storage-daemon' ? 'qemu-system-common' : 'qemu-utils';
    if ((await ensureInstalled(tool, source)) === null) context.skip();
  }
}

export function uriOf(path: string, exportName: string): string {
  return `nbd+unix:///${exportName}?socket=${path}`;
}

/** qemu-io's commands on an image, one after another; what it says. It fails where one of them does. */
export async function qemuIo(image: string, format: string, ...commands: string[]): Promise<string> {
  const { stdout, stderr } = await run('qemu-io', [
    ...['-f', format, ...commands.flatMap((command) => ['-c', command])],
    image,
  ]);
  const said = stdout + stderr;
  if (/failed|error/i.test(said)) throw new Error(said);
  return said;
}

export async function qemuImg(...args: string[]): Promise<string> {
  return (await run('qemu-img', args)).stdout;
}

export async function rawImage(file: string, bytes: number): Promise<string> {
  await writeFile(file, '');
  await truncate(file, bytes);
  return file;
}

export async function started(
  cleanup: Cleanup,
  command: string,
  args: readonly string[],
): Promise<ChildProcess> {
  // qemu-nbd complains of every client that goes: what is wrong with the program itself, nobody who waits for it finds.
  const child = spawn(command, args, { stdio: 'ignore' });
  cleanup.add(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'close');
  });
  await once(child, 'spawn');
  return child;
}

/** For qemu-nbd: several clients, one after another or at once, of an export named "disk". */
export const NBD = ['--persistent', '--shared=8', '--export-name=disk'];

/** An image behind qemu-nbd: the path of its socket. */
export async function served(
  cleanup: Cleanup,
  image: string,
  format: string,
  ...options: string[]
): Promise<string> {
  const socket = `${await cleanup.directory()}/socket`;
  await started(cleanup, 'qemu-nbd', [...NBD, '-f', format, '-k', socket, ...options, image]);
  await listening(socket);
  return socket;
}

/** Resolves when somebody listens there. (Nobody connects to find out: to some that is a client, or a failure.) */
export async function listening(path: string): Promise<void> {
  const accepting = new RegExp(`^\\S+ \\S+ \\S+ 00010000 .* ${path}$`, 'm');
  await until(`somebody listens at ${path}`, () => accepting.test(readFileSync('/proc/net/unix', 'latin1')));
}

export async function monitorAt(path: string): Promise<QmpClient> {
  await listening(path);
  const socket = connect(path);
  await once(socket, 'connect');
  return QmpClient.open(socket);
}

/** QEMU's block layer without a machine. */
export async function storageDaemon(cleanup: Cleanup): Promise<QmpClient> {
  const path = `${await cleanup.directory()}/qmp`;
  const monitor = `socket,id=monitor,path=${path},server=on,wait=off`;
  await started(cleanup, 'qemu-storage-daemon', ['--chardev', monitor, '--monitor', 'chardev=monitor']);
  const qmp = await monitorAt(path);
  cleanup.add(() => qmp.close());
  return qmp;
}

export async function exported(
  cleanup: Cleanup,
  options: Partial<NbdExportsOptions> & Pick<NbdExportsOptions, 'disks'>,
): Promise<{ exports: NbdExports; events: NbdExportEvent[] }> {
  const directory = await cleanup.directory();
  const exports = await NbdExports.open({ directory, poolBytes: 64 * MIB, ...options });
  cleanup.add(() => exports.close());
  const events: NbdExportEvent[] = [];
  exports.events$.subscribe((event) => events.push(event));
  return { exports, events };
}

/** The mirror of node `disk` into the export of that name, as Romulus attaches it. */
export async function attachMirror(
  qmp: QmpClient,
  exports: NbdExports,
  disk: string,
  sync = 'none',
): Promise<void> {
  await qmp.execute('blockdev-add', {
    ...{ driver: 'nbd', 'node-name': `mirror-${disk}`, export: disk },
    server: { type: 'unix', path: exports.path },
  });
  await qmp.execute('blockdev-mirror', {
    ...{ 'job-id': `job-${disk}`, device: disk, target: `mirror-${disk}`, sync },
    ...{ 'copy-mode': 'write-blocking', 'filter-node-name': `filter-${disk}` },
    ...{ 'on-target-error': 'report', 'on-source-error': 'report' },
  });
}

/** A disk in memory, to which is done what was told of another. */
export class StandbyDisk {
  readonly octets: Buffer;

  constructor(bytes: number) {
    this.octets = Buffer.alloc(bytes);
  }

  take({ extents, slabs }: { readonly extents: Extents; readonly slabs: readonly Slab[] }): void {
    for (let i = 0; i < extents.count; i++) {
      const offset = extents.offsets[i] ?? NaN;
      const length = extents.lengths[i] ?? NaN;
      if (extents.kinds[i] === WriteKind.DATA) this.octets.set(dataAt(extents, slabs, i), offset);
      else if (extents.kinds[i] === WriteKind.ZERO) this.octets.fill(0, offset, offset + length);
    }
  }

  /** How many sectors differ from those of the file. */
  differing(file: string): number {
    return this.differingFrom(readFileSync(file));
  }

  differingFrom(other: Buffer): number {
    expect(other.length).to.equal(this.octets.length);
    let count = 0;
    for (let at = 0; at < other.length; at += 512) {
      if (other.compare(this.octets, at, at + 512, at, at + 512) !== 0) count++;
    }
    return count;
  }
}

/** Ends an epoch, and does what it wrote to the disk, by name. */
export async function sealInto(
  exports: NbdExports,
  disks: Readonly<Record<string, StandbyDisk>>,
): Promise<readonly EpochWrites[]> {
  const sealed = await exports.seal();
  for (const writes of sealed) disks[writes.name]?.take(writes);
  exports.release(sealed.flatMap(({ slabs }) => slabs));
  return sealed;
}

export async function expectNbd(promise: Promise<unknown>, code: NbdErrorCode, text = ''): Promise<NbdError> {
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof NbdError)) throw error;
    expect(error.code, error.message).to.equal(code);
    expect(error.message).to.include(text);
    return error;
  }
  throw new Error(`it should have failed with ${code}`);
}

/** Where temporary files are made while the test runs; nothing is in it. */
export async function temporaryFiles(cleanup: Cleanup): Promise<string> {
  const before = process.env['TMPDIR'];
  const directory = await cleanup.directory();
  process.env['TMPDIR'] = directory;
  cleanup.add(() => {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
  });
  return directory;
}
