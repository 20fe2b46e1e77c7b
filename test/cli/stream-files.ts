// What the tests of the verbs for stream files share: a folder of their own, the verbs as processes, and a second,
// simple reading of what state a stream leaves a domain in.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { PAGE_SIZE, RecordType, hasPageData } from '../../src/stream/format.js';
import { PageBatch, decodePageData } from '../../src/stream/page-data.js';
import { viewOf } from '../../src/stream/octets.js';
import { RecordReader, layerOf } from '../../src/stream/record-reader.js';

export const entry = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** A folder that is gone after the tests of the suite that asks for it. */
export function folderForTests(): {
  path: (name: string) => string;
  write: (name: string, octets: Uint8Array | string) => Promise<string>;
} {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'romulus-files-'));
  });
  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });
  return {
    path: (name) => path.join(folder, name),
    write: async (name, octets) => {
      const file = path.join(folder, name);
      await writeFile(file, octets);
      return file;
    },
  };
}

export interface Run {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function run(command: string, args: readonly string[], env = process.env): Promise<Run> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  await once(child, 'close');
  return { exitCode: child.exitCode, stdout, stderr };
}

export function romulus(...args: readonly string[]): Promise<Run> {
  return run(process.execPath, [entry, ...args]);
}

/** Where a verb prints to, when it runs in this process. */
export class Captured extends Writable {
  text = '';

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

export interface DomainState {
  /** Type and content of each pfn; no content for types without. */
  readonly pages: Map<number, { readonly type: number; readonly content: Uint8Array | null }>;
  /** Content of each other record that says something about the domain: type, and id of the vCPU. */
  readonly records: Map<string, Uint8Array>;
  readonly layers: string;
}

/** One object for all pfns of a type: HVM streams have a million of them. */
const WITHOUT_CONTENT = Array.from({ length: 16 }, (_, type) => ({ type, content: null }));

const SIGNALS: readonly number[] = [RecordType.END, RecordType.CHECKPOINT, RecordType.VERIFY];
const VCPU: readonly number[] = [4, 5, 6, 12];

/** The state at checkpoint `number`; 0: at END. */
export function stateAt(octets: Uint8Array, number: number): DomainState {
  const reader = new RecordReader();
  reader.push(octets);
  const pages: DomainState['pages'] = new Map();
  const records: DomainState['records'] = new Map();
  const batch = new PageBatch();
  let checkpoints = 0;
  for (let record = reader.next(); record !== null; record = reader.next()) {
    if (record.layer === 'libxl') {
      if (record.type === 2 || record.type === 3) {
        records.set(`libxl ${record.type}`, record.body);
      }
    } else if (record.type === RecordType.PAGE_DATA) {
      decodePageData(record, batch);
      let at = batch.dataOffset;
      for (let index = 0; index < batch.count; index += 1) {
        const type = batch.types[index] ?? 0;
        const content = hasPageData(type) ? record.body.subarray(at, at + PAGE_SIZE) : null;
        at += content === null ? 0 : PAGE_SIZE;
        pages.set(
          batch.pfns[index] ?? 0,
          content === null ? (WITHOUT_CONTENT[type] ?? { type, content }) : { type, content },
        );
      }
    } else if (!SIGNALS.includes(record.type)) {
      const vcpu = VCPU.includes(record.type) ? ` of ${viewOf(record.body).getUint32(0, true)}` : '';
      records.set(`libxc ${record.type}${vcpu}`, record.body);
    }
    checkpoints += record.layer !== 'libxl' && record.type === RecordType.CHECKPOINT ? 1 : 0;
    if (checkpoints > 0 && checkpoints === number) {
      break;
    }
  }
  return { pages, records, layers: layerOf(octets) ?? 'none' };
}

/** What differs, in words; empty if nothing does. */
export function differences(one: DomainState, other: DomainState): string[] {
  const found: string[] = [];
  if (one.layers !== other.layers) {
    found.push(`layers ${one.layers} and ${other.layers}`);
  }
  if (one.pages.size !== other.pages.size) {
    found.push(`${one.pages.size} and ${other.pages.size} pfns`);
  }
  for (const [pfn, { type, content }] of one.pages) {
    const there = other.pages.get(pfn);
    const same =
      there?.type === type &&
      (content === null || Buffer.compare(content, there.content ?? new Uint8Array(0)) === 0);
    if (!same) {
      found.push(`pfn ${pfn}`);
    }
  }
  for (const key of new Set([...one.records.keys(), ...other.records.keys()])) {
    const a = one.records.get(key);
    const b = other.records.get(key);
    if (a === undefined || b === undefined || Buffer.compare(a, b) !== 0) {
      found.push(key);
    }
  }
  return found;
}
