// romulus save: runs an embedded machine for a while and writes a plain image of it, live: the machine stands still
// only for the last pages.

import { parseSize } from '../config/units.js';
import { openEmbeddedSource } from '../hypervisor/embedded/index.js';
import { saveDomain } from '../save/save.js';
import { FileSink } from '../save/file-sink.js';
import { ExitCode } from './exit-codes.js';
import { formatBytes } from './demo/screen.js';
import { showConsole, watchTicks, workingSet } from './machine.js';
import { onInterruption } from './signals.js';
import { UsageError } from './usage.js';

export interface SaveVerbOptions {
  readonly memory: string;
  readonly dirty: number;
  readonly ticks: number;
}

export async function saveVerb(file: string, options: SaveVerbOptions): Promise<ExitCode> {
  const memoryBytes = parseSize(options.memory);
  if (memoryBytes === null) throw new UsageError(`--memory ${options.memory} is no size ("64MiB")`);
  const interruption = onInterruption();
  const domain = await openEmbeddedSource({
    name: 'save',
    memoryBytes,
    guest: { kind: 'builtin', ...workingSet(memoryBytes, options.dirty) },
  });
  const console = showConsole(domain);
  try {
    const ticked = watchTicks(domain, options.ticks, interruption.signal);
    await domain.start();
    await ticked;
    const sink = await FileSink.create(file);
    try {
      const { bytes } = await saveDomain({
        domain,
        sink,
        streamType: 'plain',
        live: true,
        callbacks: {
          suspend: () => domain.suspend(),
          postcopy: () => Promise.resolve(),
          checkpoint: () => Promise.resolve('finish'),
        },
      });
      await sink.commit();
      process.stderr.write(`${file}: ${formatBytes(bytes)}\n`);
    } catch (error) {
      await sink.discard();
      throw error;
    }
    return ExitCode.OK;
  } finally {
    await domain.destroy();
    console.unsubscribe();
    interruption.dispose();
  }
}
