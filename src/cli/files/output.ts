// Text that a verb prints while it walks a file: collected, and written when the walk pauses, as fast as whoever reads
// it takes it.

import { once } from 'node:events';
import type { StreamVisitor, WalkEnd } from '../../stream/examine/visitor.js';
import type { ExitCode } from '../exit-codes.js';
import { InputFile } from './input.js';
import { Progress } from './progress.js';

/** What a verb makes of a walk. */
export interface Printing {
  readonly visitor: StreamVisitor;
  /** The last words. `length`: octets of the stream. */
  end(result: WalkEnd, length: number): ExitCode;
}

/**
 * Walks the file at `path` and prints what comes of it.
 * @param begin `name`: the file's, for people
 * @throws as InputFile.open() and walk(); Node's system error when the reader has gone
 */
export async function printWalk(
  verb: string,
  path: string,
  out: NodeJS.WritableStream,
  begin: (output: TextOutput, name: string) => Printing,
): Promise<ExitCode> {
  const file = await InputFile.open(path);
  const progress = new Progress(verb, file.size);
  try {
    const output = new TextOutput(out);
    const printing = begin(output, file.path);
    const { result, length } = await file.walk(printing.visitor, {
      onPause: async (position) => {
        progress.at(position);
        await output.flush();
      },
    });
    progress.end();
    const code = printing.end(result, length);
    await output.flush();
    return code;
  } finally {
    progress.end();
    await file.close();
  }
}

export class TextOutput {
  readonly #out: NodeJS.WritableStream;
  #pieces: string[] = [];
  #error: Error | null = null;

  constructor(out: NodeJS.WritableStream) {
    this.#out = out;
    // A reader that goes away ("| head") would end the process where nobody listens.
    out.on('error', (error: Error) => {
      this.#error ??= error;
    });
  }

  write(text: string): void {
    this.#pieces.push(text);
  }

  line(text: string): void {
    this.#pieces.push(text, '\n');
  }

  /** Resolves when the reader can take more. @throws Node's system error when it has gone */
  async flush(): Promise<void> {
    if (this.#error !== null) throw this.#error;
    if (this.#pieces.length === 0) return;
    const text = this.#pieces.join('');
    this.#pieces = [];
    if (!this.#out.write(text)) await once(this.#out, 'drain');
  }
}
