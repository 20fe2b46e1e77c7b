// What verbs that make a stream file of another one have in common: a walk or two finds out what is to be written, then
// it is written, and said. What libvirt or xenopsd keeps around a stream is not taken along: that is said, too, since
// some of it belongs to the guest (its device model's state, its firmware's variables).

import type { StreamVisitor, WrapperPart } from '../../stream/examine/visitor.js';
import { ExitCode } from '../exit-codes.js';
import { interruptible } from '../signals.js';
import { formatBytes } from '../text.js';
import { ImageOutput } from './image-output.js';
import { type ImageMaker, ImageMeasure, ImageWriter } from './image-writer.js';
import { InputFile } from './input.js';
import { Progress } from './progress.js';

/** Done twice where the room for the image is known: by one who only counts, at first. Returns what is said of it. */
export type Make = (maker: ImageMaker) => Promise<string>;

/** Called between two reads or writes; what it throws ends the job. `position`: in the file, in octets. */
export type OnPause = (position: number) => void;

/**
 * @param report where it says what it has written
 * @param prepare finds out what is to be written; `leftOut` sees the walk
 */
export function rewrite(
  verb: string,
  { path, out, report }: { path: string; out: string; report: NodeJS.WritableStream },
  prepare: (input: InputFile, onPause: OnPause, leftOut: StreamVisitor) => Promise<Make>,
): Promise<ExitCode> {
  return interruptible(async (signal) => {
    const output = await ImageOutput.find(out);
    const input = await InputFile.open(path, { twice: true, signal });
    const progress = new Progress(verb, input.size);
    try {
      const onPause = (position: number): void => {
        signal.throwIfAborted();
        progress.at(position);
      };
      const leftOut = new LeftOut();
      const make = await prepare(input, onPause, leftOut);
      const measure = async (): Promise<number> => {
        const image = new ImageMeasure();
        await make(image);
        return image.bytes;
      };
      const said = await output.write({ signal, report, input: input.place, measure }, async (sink) => {
        const made = await make(new ImageWriter(input, sink, () => onPause(sink.bytes)));
        return `${made}, ${formatBytes(sink.bytes)}`;
      });
      progress.end();
      report.write(`${output.name}: ${said}\n`);
      leftOut.report(report);
      return ExitCode.OK;
    } finally {
      progress.end();
      await input.close();
    }
  });
}

/** Parts that frame the file and hold nothing. */
const FRAMING: readonly string[] = ['signature', 'Libxc', 'Libxl', 'End_of_image'];
/** A real file has one of each kind. */
const PARTS_MAX = 16;

class LeftOut implements StreamVisitor {
  readonly #parts: WrapperPart[] = [];

  wrapper(part: WrapperPart): void {
    if (!FRAMING.includes(part.name) && this.#parts.length < PARTS_MAX) this.#parts.push(part);
  }

  report(to: NodeJS.WritableStream): void {
    for (const { kind, name, offset, length } of this.#parts) {
      to.write(`left out: ${kind}'s ${name}, ${length} octets at ${offset}\n`);
    }
  }
}
