// The disks' side against QEMU's own tools, in the same run and in turn: the server that a mirror writes to against
// qemu-nbd, in front of a file in memory and of a disk that throws all away; a copy of a disk against qemu-img convert; and
// a copy of what has changed on a large disk against that on a small one.

import { execFile } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { CHUNK_BYTES, DirtyMap } from '../../src/disk/dirty-map.js';
import { dataAt } from '../../src/disk/extents.js';
import { Mask } from '../../src/disk/mask.js';
import { ALLOCATION } from '../../src/hypervisor/qemu/disks/nbd/block-status.js';
import { NbdClient } from '../../src/hypervisor/qemu/disks/nbd/client.js';
import { copyDisk } from '../../src/hypervisor/qemu/disks/nbd/copy.js';
import { NbdExports } from '../../src/hypervisor/qemu/disks/nbd/exports.js';
import { memoryDirectory } from '../../src/hypervisor/qemu/memory/reserve.js';
import {
  MIB,
  NBD,
  listening,
  qemuImg,
  qemuIo,
  rawImage,
  served,
  started,
  uriOf,
} from '../hypervisor/qemu/disks/support.js';
import { Cleanup } from '../support/cleanup.js';
import { ensureInstalled } from '../support/tools.js';
import { type BenchResult, percentile } from './bench.js';

const ROUNDS = 7;
const DISK_BYTES = 1024 * MIB;
const POOL_BYTES = 256 * MIB;
const EPOCH_MS = 25;
const GIB = 1024 * MIB;
const COPIED_BYTES = 4 * GIB;
const COPIES = 3;
/** Chunks that have changed, far from each other. */
const CHANGED = 1024;
const DEPTH = 16;
const run = promisify(execFile);

/** Requests in a second. */
async function rate(socket: string, bytes: number, count: number): Promise<number> {
  const { stdout } = await run('qemu-img', [
    ...[
      'bench',
      '-w',
      '-t',
      'none',
      '-f',
      'raw',
      '-c',
      String(count),
      '-d',
      String(DEPTH),
      '-s',
      String(bytes),
    ],
    uriOf(socket, 'disk'),
  ]);
  const seconds = Number(/in ([\d.]+) seconds/.exec(stdout)?.[1]);
  return count / seconds;
}

/** Of a server that keeps what it is sent, in memory, and one that does not look at it. */
async function references(cleanup: Cleanup): Promise<Readonly<Record<'keeping' | 'dropping', string>>> {
  const directory = await cleanup.directory();
  const dropping = `${directory}/dropping`;
  const options = `driver=null-co,size=${DISK_BYTES}`;
  await started(cleanup, 'qemu-nbd', [...NBD, '-k', dropping, '--image-opts', options]);
  await listening(dropping);
  const memory = await mkdtemp(path.join(await memoryDirectory({}), 'romulus-bench-'));
  cleanup.add(() => rm(memory, { recursive: true }));
  const image = await rawImage(`${memory}/image`, DISK_BYTES);
  return { dropping, keeping: await served(cleanup, image, 'raw') };
}

/** Exports whose epochs end and whose memory comes back, as while a guest is protected. */
async function exported(cleanup: Cleanup): Promise<NbdExports> {
  const directory = await cleanup.directory();
  const disks = [{ name: 'disk', bytes: DISK_BYTES }];
  const exports = await NbdExports.open({ directory, disks, poolBytes: POOL_BYTES });
  cleanup.add(() => exports.close());
  const seal = async () => {
    for (const { slabs, dirty } of await exports.seal()) {
      if (dirty !== null) throw new Error('data were not kept');
      exports.release(slabs);
    }
  };
  let sealing = Promise.resolve();
  const epochs = setInterval(() => {
    sealing = seal();
  }, EPOCH_MS);
  cleanup.add(async () => {
    clearInterval(epochs);
    await sealing;
  });
  return exports;
}

async function server(cleanup: Cleanup): Promise<BenchResult[]> {
  const { keeping, dropping } = await references(cleanup);
  const ours = await exported(cleanup);
  const results: BenchResult[] = [];
  for (const [bytes, count] of [
    [65_536, 8000],
    [4096, 25_000],
  ] as const) {
    const rates: Record<'ours' | 'keeping' | 'dropping', number[]> = { ours: [], keeping: [], dropping: [] };
    for (let round = 0; round < ROUNDS; round++) {
      rates.ours.push(await rate(ours.path, bytes, count));
      rates.keeping.push(await rate(keeping, bytes, count));
      rates.dropping.push(await rate(dropping, bytes, count));
    }
    const value = percentile(rates.ours, 0.5);
    const against = (name: string, others: readonly number[], target: string): BenchResult => {
      const other = percentile(others, 0.5);
      return {
        name: `NBD server, writes of ${bytes / 1024} KiB, depth ${DEPTH}: p50`,
        ...{ value: value / 1000, unit: 'thousand/s' },
        reference: { name, value: other / 1000 },
        ...{ ratio: value / other, target },
      };
    };
    results.push(against('qemu-nbd, a file in memory', rates.keeping, '>= 0.85'));
    // What is kept has to be copied once, into memory that no cache holds: of 64 KiB that is most of our time.
    results.push(against('qemu-nbd, all thrown away', rates.dropping, bytes > 4096 ? '>= 0.6' : '>= 0.55'));
  }
  return results;
}

async function copy(cleanup: Cleanup): Promise<BenchResult[]> {
  const directory = await cleanup.directory();
  const image = await rawImage(`${directory}/image`, COPIED_BYTES);
  await qemuIo(image, 'raw', 'write -P 7 100M 600M', 'write -P 8 3000M 424M');
  const source = await served(cleanup, image, 'raw', '--read-only');
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < COPIES; round++) {
    const out = await rawImage(`${directory}/copy`, COPIED_BYTES);
    ours.push(await timed(() => copyTo(source, out)));
    if (
      round === 0 &&
      !(await qemuImg('compare', '-f', 'raw', '-F', 'raw', '-U', image, out)).includes('identical')
    )
      throw new Error('the copy differs');
    const other = `${directory}/other`;
    theirs.push(
      await timed(() => qemuImg('convert', '-f', 'raw', '-O', 'raw', uriOf(source, 'disk'), other)),
    );
  }
  const [value, other] = [percentile(ours, 0.5), percentile(theirs, 0.5)];
  return [
    {
      name: 'copy of 4 GiB with 1 GiB of data: p50',
      ...{ value, unit: 'ms' },
      reference: { name: 'qemu-img convert', value: other },
      ...{ ratio: value / other, target: '<= 1.3' },
    },
  ];
}

/** The same changes on both. */
async function changes(cleanup: Cleanup): Promise<BenchResult[]> {
  const times: Record<'4' | '64', number[]> = { '4': [], '64': [] };
  const disks = await Promise.all(
    (['4', '64'] as const).map(async (size) => {
      const directory = await cleanup.directory();
      const image = await rawImage(`${directory}/image`, Number(size) * GIB);
      const todo = new DirtyMap(Number(size) * GIB);
      const apart = todo.bytes / CHANGED;
      const fd = openSync(image, 'r+');
      for (let at = 0; at < todo.bytes; at += apart) {
        writeSync(fd, Buffer.alloc(CHUNK_BYTES, 1 + (at % 255)), 0, CHUNK_BYTES, at);
        todo.mark(at, CHUNK_BYTES);
      }
      closeSync(fd);
      const out = await rawImage(`${directory}/copy`, todo.bytes);
      return { size, todo, out, source: await served(cleanup, image, 'raw', '--read-only') };
    }),
  );
  for (let round = 0; round < ROUNDS; round++) {
    for (const { size, todo, out, source } of disks) {
      times[size].push(await timed(() => copyTo(source, out, todo)));
    }
  }
  const [value, other] = [percentile(times['64'], 0.5), percentile(times['4'], 0.5)];
  return [
    {
      name: 'copy of 64 MiB that have changed on a disk of 64 GiB: p50',
      ...{ value, unit: 'ms' },
      reference: { name: 'on one of 4 GiB', value: other },
      ...{ ratio: value / other, target: '<= 1.3' },
    },
  ];
}

/** `changed`: left out: all. */
async function copyTo(source: string, file: string, changed?: DirtyMap): Promise<void> {
  const client = await NbdClient.connect({ path: source, exportName: 'disk', contexts: [ALLOCATION] });
  const fd = openSync(file, 'r+');
  try {
    const todo = new DirtyMap(client.bytes, changed?.words.slice());
    if (changed === undefined) todo.markAll();
    await copyDisk({
      ...{ client, todo, mask: new Mask(), bytesPerSecond: Infinity },
      signal: new AbortController().signal,
      take: ({ extents, slab }) => {
        for (let i = 0; slab && i < extents.count; i++) {
          const data = dataAt(extents, [slab], i);
          writeSync(fd, data, 0, data.length, extents.offsets[i]);
        }
        return Promise.resolve(slab);
      },
    });
  } finally {
    closeSync(fd);
    client.close();
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

export async function bench(): Promise<BenchResult[]> {
  for (const tool of ['qemu-nbd', 'qemu-img', 'qemu-io']) {
    if ((await ensureInstalled(tool, 'qemu-utils')) === null) return [];
  }
  const cleanup = new Cleanup();
  try {
    return [...(await server(cleanup)), ...(await copy(cleanup)), ...(await changes(cleanup))];
  } finally {
    await cleanup.run();
  }
}
