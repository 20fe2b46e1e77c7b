// Text that a verb prints while it walks a file: collected, and written when the walk pauses, as fast as whoever reads
// it takes it.

import { once } from 'node:events';

export class TextOutput {
  readonly #out: NodeJS.WritableStream;
  #pieces: string[] = [];
  #error: Error | null = null;

  constructor(out: NodeJS.WritableStream = process.stdout) {
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
    if (this.#error !== null) {
      throw this.#error;
    }
    if (this.#pieces.length === 0) {
      return;
    }
    const text = this.#pieces.join('');
    this.#pieces = [];
    if (!this.#out.write(text)) {
      await once(this.#out, 'drain');
    }
  }
}
