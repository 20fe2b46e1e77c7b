// inspect and verify of a stream of 1 GiB, against a plain read loop over the same file in the same run; each in a
// process of its own, with its peak memory. (Both pass the pages by: no rule speaks of what is in them.) Run three
// times in turn, the best of each is taken.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { MAX_BATCH_SIZE, RecordType } from '../../src/stream/format.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { pageDataBody } from '../stream/streams.js';
import type { BenchResult } from './bench.js';

const GIB = 1024 ** 3;
const BATCHES = GIB / (MAX_BATCH_SIZE * 4096);
const MEMORY_MIB_MAX = 200;
const commands = fileURLToPath(new URL('../../src/cli/', import.meta.url));

const PLAIN_LOOP = `
  const fs = require('node:fs');
  const buffer = Buffer.allocUnsafe(1024 * 1024);
  const started = performance.now();
  const file = fs.openSync(process.argv[2], 'r');
  while (fs.readSync(file, buffer) > 0);
  report(started);
`;
// The verb alone: node's own start and the loading of modules are no part of handling a stream.
const verb = (name: string): string => `
  import(${JSON.stringify(commands)} + '${name}.js').then(async (module) => {
    const started = performance.now();
    await module.${name}Verb(process.argv[2], { json: true });
    report(started);
  });
`;
const REPORT = `
  const report = async (started) => {
    const seconds = (performance.now() - started) / 1000;
    const { peakMemoryMiB } = await import(${JSON.stringify(new URL('./bench.js', import.meta.url).href)});
    require('node:fs').writeSync(2, JSON.stringify({ seconds, peakMiB: peakMemoryMiB() }));
  };
`;

interface Report {
  readonly seconds: number;
  readonly peakMiB: number;
}

export async function bench(): Promise<BenchResult[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'romulus-bench-'));
  try {
    const file = path.join(folder, 'stream');
    await writeStream(file);
    const best: Record<string, Report> = {};
    for (let round = 0; round < 3; round += 1) {
      for (const [name, script] of [
        ['read', PLAIN_LOOP],
        ['inspect', verb('inspect')],
        ['verify', verb('verify')],
      ] as const) {
        const report = await measured(folder, REPORT + script, file);
        const before = best[name] ?? report;
        best[name] = {
          seconds: Math.min(before.seconds, report.seconds),
          peakMiB: Math.max(before.peakMiB, report.peakMiB),
        };
      }
    }
    const speed = (name: string) => 1024 / (best[name]?.seconds ?? NaN);
    return ['inspect', 'verify'].flatMap((name) => [
      {
        name: `${name}, 1 GiB`,
        value: speed(name),
        unit: 'MiB/s',
        reference: { name: 'a plain read loop', value: speed('read') },
        ratio: speed(name) / speed('read'),
        target: '>= 0.5',
      },
      {
        name: `${name}, peak memory`,
        value: best[name]?.peakMiB ?? NaN,
        unit: 'MiB',
        target: `<= ${MEMORY_MIB_MAX}`,
      },
    ]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measured(folder: string, script: string, file: string): Promise<Report> {
  const program = path.join(folder, 'measured.cjs');
  await writeFile(program, script);
  const child = spawn(process.execPath, [program, file], { stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await once(child, 'close');
  if (child.exitCode !== 0) {
    throw new Error(`exit code ${child.exitCode ?? 'none'}: ${text}`);
  }
  return JSON.parse(text) as Report;
}

async function writeStream(file: string): Promise<void> {
  const out = await open(file, 'wx');
  try {
    await out.write(
      concatenate([
        encodeHeaders({ domainType: 2, xenMajor: 4, xenMinor: 17 }),
        encodeRecord(RecordType.STATIC_DATA_END),
      ]),
    );
    for (let batch = 0; batch < BATCHES; batch += 1) {
      const entries = Array.from(
        { length: MAX_BATCH_SIZE },
        (_, index) => [batch * MAX_BATCH_SIZE + index, 0] as const,
      );
      await out.write(encodeRecord(RecordType.PAGE_DATA, pageDataBody(entries, batch)));
    }
    const params = encodeRecord(RecordType.HVM_PARAMS, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0));
    await out.write(
      concatenate([
        params,
        encodeRecord(RecordType.HVM_CONTEXT, Uint8Array.of(1)),
        encodeRecord(RecordType.END),
      ]),
    );
  } finally {
    await out.close();
  }
}
