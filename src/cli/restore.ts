// romulus restore: makes an embedded machine of a plain image and lets it go on.

import { openEmbeddedTarget } from '../hypervisor/embedded/index.js';
import { contextPages } from '../hypervisor/embedded/context.js';
import { openFileSource } from '../restore/file-source.js';
import { restoreDomain } from '../restore/restore.js';
import { PAGE_SIZE, RecordType } from '../stream/format.js';
import { ExitCode } from './exit-codes.js';
import { showConsole, watchTicks, workingSet } from './machine.js';
import { InterruptedError, onInterruption } from './signals.js';
import { UsageError } from './usage.js';

export interface RestoreVerbOptions {
  readonly ticks?: number;
}

export async function restoreVerb(file: string, options: RestoreVerbOptions): Promise<ExitCode> {
  const memoryBytes = await machineMemory(file);
  const interruption = onInterruption();
  const domain = await openEmbeddedTarget({
    name: 'restore',
    memoryBytes,
    guest: { kind: 'builtin', ...workingSet(memoryBytes, 0) },
  });
  const console = showConsole(domain);
  const source = openFileSource(file);
  try {
    await restoreDomain({
      domain,
      source,
      streamType: 'plain',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    const ended = watchTicks(domain, options.ticks ?? null, interruption.signal);
    await domain.start();
    await ended;
    return ExitCode.OK;
  } catch (error) {
    // Without --ticks, Ctrl-C is how it is meant to end.
    if (error instanceof InterruptedError && options.ticks === undefined) return ExitCode.OK;
    throw error;
  } finally {
    await source.close();
    await domain.destroy();
    console.unsubscribe();
    interruption.dispose();
  }
}

/** Octets of memory of the machine that the image is of: its context says so. */
async function machineMemory(file: string): Promise<number> {
  const source = openFileSource(file);
  try {
    await source.headers();
    for (let record = await source.read(); record !== null; record = await source.read()) {
      if (record.layer === 'libxl') continue;
      if (record.type === RecordType.CHECKPOINT) {
        throw new UsageError(`${file} is a checkpointed stream, not a plain image`);
      }
      if (record.type === RecordType.HVM_CONTEXT) return contextPages(record.body) * PAGE_SIZE;
    }
  } finally {
    await source.close();
  }
  throw new UsageError(`${file} ends before its HVM context: it is no whole image`);
}
