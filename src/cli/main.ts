#!/usr/bin/env node
// Where the process begins: signals first, then the program. What is imported from here runs before anything else is even
// loaded, so it is little.

import { closeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { codeOf } from '../errors.js';
import { ExitCode } from './exit-codes.js';
import { shieldFromSignals } from './signals.js';

/** Of a terminal that was closed, of a reader that has left. */
const NOBODY_READS: ReadonlySet<string> = new Set(['EIO', 'EPIPE']);

shieldFromSignals();
// What nobody can read any more is not said. That ends nothing, and whoever cares listens himself.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error) => {
    if (!NOBODY_READS.has(codeOf(error))) throw error;
  });
}
// Node restores the terminals that it began with, and aborts over one that is gone.
const terminals = [0, 1, 2].filter((fd) => isatty(fd));
process.on('exit', () => {
  for (const fd of terminals) if (!isatty(fd)) closeSync(fd);
});
try {
  const { main } = await import('./program.js');
  process.exitCode = await main();
} catch (error) {
  // The program has many files, and they are read at once.
  if (codeOf(error) !== 'EMFILE') throw error;
  process.stderr.write('romulus: TOO_FEW_DESCRIPTORS: too few files may be open to begin: ulimit -n 256\n');
  process.exitCode = ExitCode.USAGE;
}
