// romulus inspect: what is in a stream file of any layer. The list of its records is printed while it is walked, the
// summary at the end; neither the file nor the list is ever held.

import {
  type Survey,
  type SurveyListener,
  Surveyor,
  type SurveyedCheckpoint,
  type SurveyedRecord,
} from '../stream/examine/survey.js';
import { lastCheckpoint } from '../stream/examine/judge.js';
import { formatBytes } from './text.js';
import { ExitCode } from './exit-codes.js';
import { type TextOutput, printWalk } from './files/output.js';

export interface InspectVerbOptions {
  readonly json?: boolean;
}

export function inspectVerb(
  path: string,
  options: InspectVerbOptions,
  out: NodeJS.WritableStream = process.stdout,
): Promise<ExitCode> {
  return printWalk('inspect', path, out, (output, name) => {
    const printer = options.json === true ? new JsonPrinter(output, path) : new TextPrinter(output, name);
    const surveyor = new Surveyor(printer);
    return {
      visitor: surveyor,
      end: (result, length) => {
        const survey = surveyor.result(result, length);
        printer.summary(survey, result.kind === 'ended' ? null : lastCheckpoint(result));
        return exitCodeOf(survey);
      },
    };
  });
}

/** Readable to its end, cut or damaged on the way, or no stream that can be read. */
function exitCodeOf(survey: Survey): ExitCode {
  if (survey.findings.some(({ severity }) => severity === 'unreadable')) return ExitCode.USAGE;
  return survey.end === 'stopped' ? ExitCode.FAILED : ExitCode.OK;
}

interface Printer extends SurveyListener {
  summary(survey: Survey, last: string | null): void;
}

/** One object: "file", "records" (a line each), and the fields of Survey. Checkpoints: the records say it. */
class JsonPrinter implements Printer {
  readonly #output: TextOutput;
  #first = true;

  constructor(output: TextOutput, path: string) {
    this.#output = output;
    output.write(`{"file":${JSON.stringify(path)},"records":[`);
  }

  record(record: SurveyedRecord): void {
    this.#output.write(`${this.#first ? '' : ','}\n${JSON.stringify(record)}`);
    this.#first = false;
  }

  summary(survey: Survey): void {
    this.#output.line(`\n],${JSON.stringify(survey).slice(1)}`);
  }
}

interface Run {
  readonly name: string;
  readonly offset: number;
  length: number;
  records: number;
  /** Pfns, or extents. */
  entries: number;
  dataBytes: number;
}

class TextPrinter implements Printer {
  readonly #output: TextOutput;
  readonly #name: string;
  /** Records in a row of PAGE_DATA, or of DISK_WRITES, make one line. */
  #run: Run | null = null;
  #begun = false;

  constructor(output: TextOutput, name: string) {
    this.#output = output;
    this.#name = name;
  }

  record({ layer, name, offset, length, pages, writes, checkpoint }: SurveyedRecord): void {
    if (pages !== undefined) {
      this.#runOn(name, offset, length, pages.count, 0);
    } else if (writes !== undefined) {
      this.#runOn(name, offset, length, writes.extents, writes.dataBytes);
    } else {
      this.#endRun();
      this.#line(offset, length, layer, checkpoint === undefined ? name : `${name} #${checkpoint}`);
    }
  }

  checkpoint({ number, pages, end }: SurveyedCheckpoint): void {
    const what = `checkpoint ${number} is whole at ${end}: ${pages} pages of data`;
    this.#output.line(`${' '.repeat(27)}── ${what} ──`);
  }

  summary(survey: Survey, last: string | null): void {
    this.#endRun();
    if (this.#begun) this.#output.line('');
    this.#output.line(`${this.#name}: ${survey.bytes} octets (${formatBytes(survey.bytes)})`);
    for (const [name, value] of summaryLines(survey, last)) this.#output.line(`${name.padEnd(13)}${value}`);
  }

  #runOn(name: string, offset: number, length: number, entries: number, dataBytes: number): void {
    if (this.#run?.name !== name) this.#endRun();
    this.#run ??= { name, offset, length: 0, records: 0, entries: 0, dataBytes: 0 };
    this.#run.length += length;
    this.#run.records += 1;
    this.#run.entries += entries;
    this.#run.dataBytes += dataBytes;
  }

  #endRun(): void {
    if (this.#run === null) return;
    const { name, offset, length, records, entries, dataBytes } = this.#run;
    const what = records === 1 ? name : `${name} × ${records}`;
    const has = name === 'PAGE_DATA' ? `${entries} pfns` : `${entries} extents, ${dataBytes} octets of data`;
    this.#line(offset, length, 'libxc', `${what}, ${has}`);
    this.#run = null;
  }

  #line(offset: number, length: number, layer: string, what: string): void {
    if (!this.#begun) {
      this.#begun = true;
      this.#output.line(`${'offset'.padStart(13)} ${'length'.padStart(12)} layer record`);
    }
    const place = `${String(offset).padStart(13)} ${String(length).padStart(12)}`;
    this.#output.line(`${place} ${layer.padEnd(5)} ${what}`);
  }
}

function summaryLines(survey: Survey, last: string | null): [string, string][] {
  const { libxc, guest, memory, pageData } = survey;
  const lines: [string, string][] = [];
  if (survey.backChannel) {
    lines.push(['kind', "COLO's back channel, from secondary to primary"]);
  } else if (survey.layers.length > 0) {
    const layers = survey.layers.map((layer) =>
      layer === 'libxl' && survey.libxl?.legacy === true ? 'libxl (converted)' : layer,
    );
    const outer = survey.wrapper === null ? '' : `${survey.wrapper} › `;
    const version = libxc === null ? '' : ` version ${libxc.version}`;
    lines.push(['layers', `${outer}${layers.join(' › ')}${version}`]);
  }
  const name = survey.xl?.name ?? null;
  if (name !== null) lines.push(['domain', name]);
  if (guest !== null) {
    const width =
      survey.width === null || survey.levels === null
        ? ''
        : `, ${survey.width * 8} bit, ${survey.levels} levels of page tables`;
    const vcpus = survey.vcpus === null ? '' : `, ${survey.vcpus} vCPU${survey.vcpus === 1 ? '' : 's'}`;
    const converted = survey.xen?.startsWith('0.') === true;
    const writer = converted ? "Xen's converter of legacy streams" : `Xen ${survey.xen ?? '?'}`;
    const size =
      memory.pages === null || memory.bytes === null
        ? 'pages too scattered to count'
        : `${memory.pages} pages (${formatBytes(memory.bytes)})`;
    const highest = memory.highestPfn === null ? '' : `, highest pfn 0x${memory.highestPfn.toString(16)}`;
    lines.push(
      ['guest', `${guest}${width}${vcpus}`],
      ['written by', writer],
      ['memory', `${size}${highest}`],
      ['page data', `${pageData.entries} pfns, ${pageData.pages} pages of data`],
      ['page types', counted(pageData.types)],
      ['checkpoints', survey.checkpoints === 0 ? 'none' : String(survey.checkpoints)],
    );
  }
  for (const { id, bytes, records, extents, dataBytes, zeroBytes, discardedBytes } of survey.disks) {
    const written = `${dataBytes} octets of data, ${zeroBytes} zeroed, ${discardedBytes} discarded`;
    const size = `${bytes} octets (${formatBytes(bytes)})`;
    lines.push(['disk', `${id}: ${size}; ${records} records, ${extents} extents: ${written}`]);
  }
  lines.push(['records', counted(survey.recordCounts)]);
  if (last !== null && survey.end !== 'stopped' && !survey.backChannel) {
    const where = survey.where === null ? 'without END' : `inside ${survey.where}`;
    lines.push(['end', `${where}; ${last}`]);
  }
  if (survey.trailingBytes > 0) lines.push(['after END', `${survey.trailingBytes} octets`]);
  for (const { rule, offset, message } of survey.findings) {
    lines.push(['found', `${rule} at ${offset}: ${message}`]);
  }
  return lines;
}

function counted(counts: Readonly<Record<string, number>>): string {
  const each = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
  return each.join(', ') || 'none';
}
