// romulus restore: makes an embedded machine of a plain image and lets it go on.

import { openEmbeddedTarget } from '../hypervisor/embedded/index.js';
import { contextPages } from '../hypervisor/embedded/context.js';
import { ChunkSource } from '../restore/file-source.js';
import { restoreDomain } from '../restore/restore.js';
import { PAGE_SIZE, RecordType } from '../stream/format.js';
import { StreamError } from '../stream/error.js';
import { RULES } from '../stream/examine/rules.js';
import { ExitCode, UsageError } from './exit-codes.js';
import { InputFile } from './files/input.js';
import { showConsole, watchTicks, workingSet } from './machine.js';
import { interruptible } from './signals.js';

export interface RestoreVerbOptions {
  readonly ticks?: number;
}

export function restoreVerb(file: string, options: RestoreVerbOptions): Promise<ExitCode> {
  return interruptible(async (signal) => {
    const input = await InputFile.open(file, { twice: true, signal });
    try {
      await restore(input, options, signal);
      return ExitCode.OK;
    } finally {
      await input.close();
    }
  });
}

async function restore(input: InputFile, options: RestoreVerbOptions, signal: AbortSignal): Promise<void> {
  const memoryBytes = await machineMemory(input);
  const domain = await openEmbeddedTarget({
    name: 'restore',
    memoryBytes,
    guest: { kind: 'builtin', ...workingSet(memoryBytes, 0) },
  });
  const console = showConsole(domain);
  const source = sourceOf(input);
  try {
    await restoreDomain({
      domain,
      source,
      streamType: 'plain',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    const ended = watchTicks(domain, options.ticks ?? null, signal);
    await domain.start();
    await ended;
  } finally {
    await source.close();
    await domain.destroy();
    console.unsubscribe();
  }
}

/** Octets of memory of the machine that the image is of: its context says so. */
async function machineMemory(input: InputFile): Promise<number> {
  const source = sourceOf(input);
  try {
    await source.headers();
    for (let record = await source.read(); record !== null; record = await source.read()) {
      if (record.layer === 'libxl') continue;
      if (record.type === RecordType.CHECKPOINT) {
        throw new UsageError(`${input.path} is a checkpointed stream, not a plain image`);
      }
      if (record.type === RecordType.HVM_CONTEXT) return contextPages(record.body) * PAGE_SIZE;
    }
  } catch (error) {
    throw await betterTold(input, error);
  } finally {
    await source.close();
  }
  throw new UsageError(`${input.path} ends before its HVM context: it is no whole image`);
}

/** What the file is, where it is no stream of Xen's at all. */
async function betterTold(input: InputFile, error: unknown): Promise<unknown> {
  if (!(error instanceof StreamError)) return error;
  const told: string[] = [];
  await input.walk({
    finding: (rule, _offset, _record, message) => {
      if (RULES[rule].severity === 'unreadable') told.push(message);
    },
  });
  const [first] = told;
  return first === undefined ? error : new StreamError(error.code, `${input.path}: ${first}`, error.facts);
}

function sourceOf(input: InputFile): ChunkSource {
  return new ChunkSource(input.chunks(), { nothingAfterEnd: !input.goesOn });
}
