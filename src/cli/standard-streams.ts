// Node's streams for standard output and standard error, as far as they are pipes, on descriptions of our own: Node makes
// a pipe non-blocking, and that holds for everybody who was given it, who then see EAGAIN and lose what they say. They are
// made when somebody asks for them, and Node itself does (its assertions, for colours).
//
//   fd 1 ─────────────┐ left as it is
//                     ├─▶ the pipe
//   ours, O_NONBLOCK ─┘
//
// Terminals Node opens once more by itself; files are left alone; a socket cannot be opened twice.

import { closeSync, fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { codeOf } from '../errors.js';
import { openNonBlocking, type StandardFd } from '../output/non-blocking.js';

/** Of a terminal that was closed, of a reader that has left. */
const NOBODY_READS: ReadonlySet<string> = new Set(['EIO', 'EPIPE']);

/** Before anybody has used one. What nobody can read any more is not said: that ends nothing, and whoever cares listens himself. */
export function shieldStandardStreams(): void {
  shield('stdout', 1);
  shield('stderr', 2);
}

function shield(name: 'stdout' | 'stderr', fd: StandardFd): void {
  const before = Object.getOwnPropertyDescriptor(process, name);
  let stream: NodeJS.WritableStream | null = null;
  const get = (): NodeJS.WritableStream => {
    if (stream) return stream;
    // Node's own, where ours cannot be.
    stream = pipe(fd) ?? (before?.get?.call(process) as NodeJS.WritableStream);
    stream.on('error', (error) => {
      if (!NOBODY_READS.has(codeOf(error))) throw error;
    });
    return stream;
  };
  Object.defineProperty(process, name, { configurable: true, enumerable: true, get });
}

function pipe(fd: StandardFd): Socket | null {
  if (!fstatSync(fd).isFIFO()) return null;
  const ours = openNonBlocking(fd);
  if (typeof ours !== 'number') return null;
  try {
    return new Socket({ fd: ours, readable: false, writable: true });
  } catch {
    closeSync(ours);
    return null;
  }
}
