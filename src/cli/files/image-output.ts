// An image that a verb writes to OUT: in place when the job is done, and given up when it fails. Where it cannot be given
// up without a trace, that is said.

import type { ImageSink } from '../../save/image-sink.js';
import { openImageSink, tooSmall } from '../../save/open-sink.js';
import { type Place, findPlace, isSame } from '../../save/place.js';
import { UsageError } from '../exit-codes.js';

export interface ImageOutputOptions {
  readonly signal: AbortSignal;
  /** Where status is written. */
  readonly report: NodeJS.WritableStream;
  /** What is read for it. */
  readonly input?: Place;
  /** The image's octets, if they can be known before. Asked for only where there may be too little room. */
  readonly measure?: () => Promise<number>;
}

export class ImageOutput {
  /** For people: "standard output" for "-". */
  readonly name: string;
  readonly #out: string;
  readonly #place: Place;

  private constructor(out: string, place: Place) {
    this.#out = out;
    this.#place = place;
    this.name = out === '-' ? 'standard output' : out;
  }

  static async find(out: string): Promise<ImageOutput> {
    return new ImageOutput(out, await findPlace(out, 1));
  }

  /** The image leaves by standard output: nothing else may be printed there. */
  get isStandardOutput(): boolean {
    return this.#place.fd === 1;
  }

  /** @throws Node's system error; UsageError; what the job throws */
  async write<Result>(
    options: ImageOutputOptions,
    job: (sink: ImageSink) => Promise<Result>,
  ): Promise<Result> {
    const { signal, report, input, measure } = options;
    const place = this.#place;
    const replaced = place.kind === 'file' && place.fd === null;
    if (input !== undefined && !replaced && isSame(input.stat, place.stat)) {
      throw new UsageError(`${this.name} is what is read, and would be overwritten while it is`);
    }
    const sink = await openImageSink({ ...place, path: place.fd === null ? place.path : this.name }, signal);
    try {
      if (sink.room !== null && measure !== undefined) {
        const bytes = await measure();
        if (bytes > sink.room) throw tooSmall(this.#out, sink.room, bytes);
      }
      const result = await job(sink);
      await sink.commit();
      return result;
    } catch (error) {
      await sink.discard();
      if (sink.through && sink.bytes > 0) {
        report.write(`${this.name}: ${sink.bytes} octets were written, and are no whole image\n`);
      }
      throw error;
    }
  }
}
