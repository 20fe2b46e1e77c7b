// romulus save: runs an embedded machine for a while and writes a plain image of it, live: the machine stands still
// only for the last pages.

import { parseSize } from '../config/units.js';
import { openEmbeddedSource } from '../hypervisor/embedded/index.js';
import { saveDomain } from '../save/save.js';
import type { SaveCallbacks } from '../save/callbacks.js';
import { ExitCode, UsageError } from './exit-codes.js';
import { formatBytes } from './text.js';
import { ImageOutput } from './files/image-output.js';
import { showConsole, watchTicks, workingSet } from './machine.js';
import { interruptible } from './signals.js';

export interface SaveVerbOptions {
  readonly memory: string;
  readonly dirty: number;
  readonly ticks: number;
}

export async function saveVerb(file: string, options: SaveVerbOptions): Promise<ExitCode> {
  const memoryBytes = parseSize(options.memory);
  if (memoryBytes === null) throw new UsageError(`--memory ${options.memory} is no size ("64MiB")`);
  const report = process.stderr;
  return interruptible(async (signal) => {
    const output = await ImageOutput.find(file);
    const domain = await openEmbeddedSource({
      name: 'save',
      memoryBytes,
      guest: { kind: 'builtin', ...workingSet(memoryBytes, options.dirty) },
    });
    const console = showConsole(domain, output.isStandardOutput ? process.stderr : process.stdout);
    try {
      const bytes = await output.write({ signal, report }, async (sink) => {
        const ticked = watchTicks(domain, options.ticks, signal);
        await domain.start();
        await ticked;
        const callbacks: SaveCallbacks = {
          suspend: () => domain.suspend(),
          postcopy: () => Promise.resolve(),
          checkpoint: () => Promise.resolve('finish'),
        };
        return (await saveDomain({ domain, sink, streamType: 'plain', live: true, callbacks })).bytes;
      });
      report.write(`${output.name}: ${formatBytes(bytes)}\n`);
      return ExitCode.OK;
    } finally {
      await domain.destroy();
      console.unsubscribe();
    }
  });
}
