// The command line: one verb a file, and the one place where an error becomes an exit code.

import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { ConfigError } from '../config/error.js';
import { asError, codeOf } from '../errors.js';
import { GuestError } from '../guest/error.js';
import { RestoreError } from '../restore/error.js';
import { SaveError, type SaveErrorCode } from '../save/error.js';
import { writeToStandardError } from '../report/log.js';
import { StreamError } from '../stream/error.js';
import type { Layer } from '../stream/record-reader.js';
import { VERSION } from '../version.js';
import { agentVerb, lastWords } from './agent.js';
import {
  evacuateVerb,
  startVerb,
  statusVerb,
  switchoverVerb,
  testFailoverVerb,
  type ControlVerbOptions,
} from './control.js';
import { convertVerb } from './convert.js';
import { demoVerb, type DemoVerbOptions } from './demo.js';
import { ExitCode, isInputCode, UsageError } from './exit-codes.js';
import { inspectVerb } from './inspect.js';
import { InterruptedError } from './signals.js';
import { recoverVerb } from './recover.js';
import { restoreVerb, type RestoreVerbOptions } from './restore.js';
import { saveVerb, type SaveVerbOptions } from './save.js';
import { verifyVerb } from './verify.js';

function wholeNumber(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) {
      throw new InvalidArgumentError(`expected a whole number from ${minimum} to ${maximum}`);
    }
    return value;
  };
}

type SetExitCode = (code: ExitCode) => void;

function buildProgram(setExitCode: SetExitCode): Command {
  const program = new Command('romulus')
    .description('Keeps running virtual machines alive when their host dies.')
    .version(VERSION)
    .showHelpAfterError('(romulus help VERB shows its options)')
    .exitOverride();
  for (const add of [addDemo, addAgent, addImageVerbs, addStreamVerbs]) add(program, setExitCode);
  return program;
}

function addDemo(program: Command, setExitCode: SetExitCode): void {
  program
    .command('demo')
    .description('two hosts as two processes: kill the one that runs the machine, bring it back, switch over')
    .option(
      '--interval <ms>',
      'milliseconds that the machine runs from one checkpoint to the next',
      wholeNumber(1, 60_000),
      50,
    )
    .option('--qemu', "run Debian's kernel in QEMU instead of the embedded machine")
    .option('--memory <size>', 'memory of the machine (default: 64MiB, with --qemu 128MiB)')
    .option('--dirty <pages>', 'pages that the machine rewrites per tick', wholeNumber(0, 2 ** 19), 200)
    .option(
      '--checkpoints <n>',
      'length of the run before that, in checkpoints',
      wholeNumber(1, 1_000_000),
      100,
    )
    .option(
      '--kill-at <epoch>',
      'the host that runs it is killed in the epoch after this one (default: a random one of the last half)',
      wholeNumber(0, 1_000_000),
    )
    .option('--json', 'print the report as JSON, as the last line of standard output')
    .action(async (options: DemoVerbOptions) => setExitCode(await demoVerb(options)));
}

function addAgent(program: Command, setExitCode: SetExitCode): void {
  program
    .command('agent')
    .description('do what this host has to do for the domains of its cluster: run them, or stand by for them')
    .requiredOption('--config <file>', 'configuration of the cluster (YAML), the same on each host')
    .option('--host <name>', 'the name of this host in that file (default: as this machine is called)')
    .action(async ({ config, host }: { config: string; host?: string }) =>
      setExitCode(await agentVerb(config, host)),
    );
  addControl(program, setExitCode);
}

/** What is asked of the agent of this host. */
function addControl(program: Command, setExitCode: SetExitCode): void {
  const asking = (name: string, what: string) =>
    program
      .command(name)
      .description(what)
      .requiredOption('--config <file>', 'configuration of the cluster (YAML)')
      .option('--host <name>', 'whose agent is asked (default: as this machine is called)')
      .option('--json', 'print the answer as JSON');
  asking('status', 'what the agent of this host does about each domain').action(
    async (options: ControlVerbOptions) => setExitCode(await statusVerb(options)),
  );
  asking('start', 'let a domain start on this host, whatever the witness says')
    .argument('<domain>')
    .option('--force', 'no other host runs it, or ever will from what it holds: I know')
    .action(async (domain: string, options: ControlVerbOptions & { force?: boolean }) =>
      setExitCode(await startVerb(domain, options)),
    );
  asking('switchover', 'let a domain that runs here go on at its standby, without loss')
    .argument('<domain>')
    .option('--to <host>', 'where it shall go on (default: wherever its standby is)')
    .action(async (domain: string, options: ControlVerbOptions & { to?: string }) =>
      setExitCode(await switchoverVerb(domain, options)),
    );
  asking(
    'test-failover',
    'let a copy of a domain that stands by here run for a while, unheard: would it live?',
  )
    .argument('<domain>')
    .option('--seconds <n>', 'how long it runs (default: 10)', wholeNumber(1, 3600))
    .action(async (domain: string, options: ControlVerbOptions & { seconds?: number }) =>
      setExitCode(await testFailoverVerb(domain, options)),
    );
  asking('evacuate', 'switch over every domain that runs on this host').action(
    async (options: ControlVerbOptions) => setExitCode(await evacuateVerb(options)),
  );
}

function addImageVerbs(program: Command, setExitCode: SetExitCode): void {
  program
    .command('save')
    .description('run an embedded machine, and write a plain image of it')
    .argument('<file>', 'the image to write; - is standard output')
    .option('--memory <size>', 'memory of the machine', '64MiB')
    .option('--dirty <pages>', 'pages that the machine rewrites per tick', wholeNumber(0, 2 ** 19), 200)
    .option('--ticks <n>', 'ticks that the machine makes before it is saved', wholeNumber(0, 1_000_000), 20)
    .action(async (file: string, options: SaveVerbOptions) => setExitCode(await saveVerb(file, options)));

  program
    .command('restore')
    .description('go on with an embedded machine from a plain image')
    .argument('<file>', 'the image to read; - is standard input')
    .option('--ticks <n>', 'end after so many ticks (default: run until Ctrl-C)', wholeNumber(1, 1_000_000))
    .action(async (file: string, options: RestoreVerbOptions) =>
      setExitCode(await restoreVerb(file, options)),
    );
}

function addStreamVerbs(program: Command, setExitCode: SetExitCode): void {
  for (const [name, verb, what] of [
    ['inspect', inspectVerb, 'say what is in a stream file of any layer: xl, libxl or libxc'],
    [
      'verify',
      verifyVerb,
      'hold a stream file to the specifications: exit code 0 sound, 1 unsound, 2 unreadable',
    ],
  ] as const) {
    program
      .command(name)
      .description(what)
      .argument('<file>', 'the stream; - is standard input')
      .option('--json', 'print JSON')
      .action(async (file: string, options: { json?: boolean }) => setExitCode(await verb(file, options)));
  }

  program
    .command('recover')
    .description('make a plain image of the last complete checkpoint of a stream, complete or cut')
    .argument('<file>', 'the checkpointed stream; - is standard input')
    .argument('<out>', 'the image to write; - is standard output')
    .action(async (file: string, out: string) => setExitCode(await recoverVerb(file, out)));

  program
    .command('convert')
    .description('put a stream into other layers')
    .argument('<file>', 'the stream; - is standard input')
    .argument('<out>', 'the stream to write; - is standard output')
    .addOption(
      new Option('--to <layer>', 'the layer that it shall have')
        .choices(['libxc', 'libxl', 'xl'])
        .makeOptionMandatory(),
    )
    .option('--config <json>', "file with the domain's configuration (libxl's JSON), for --to xl")
    .action(async (file: string, out: string, options: { to: Layer; config?: string }) =>
      setExitCode(await convertVerb(file, out, options)),
    );
}

/** What was found wrong with a place before anything was written there. */
const PLACE_ERRORS: ReadonlySet<SaveErrorCode> = new Set(['BAD_PLACE', 'PLACE_IN_USE', 'PLACE_TOO_SMALL']);

/** Errors of what was given to us: the command line, a configuration, a file. */
function isInputError(error: unknown): boolean {
  return (
    [ConfigError, UsageError, StreamError, RestoreError, GuestError].some((kind) => error instanceof kind) ||
    (error instanceof SaveError && PLACE_ERRORS.has(error.code)) ||
    isInputCode(codeOf(error)) ||
    isWrongAddress(error)
  );
}

/** No address of this host's, or none that is ours to listen on; not one that another process has for the moment. */
function isWrongAddress(error: unknown): boolean {
  return error instanceof Error && codeOf(error) === 'LISTEN_FAILED' && isInputCode(codeOf(error.cause));
}

export async function main(): Promise<ExitCode> {
  let exitCode: ExitCode = ExitCode.OK;
  try {
    await buildProgram((code) => (exitCode = code)).parseAsync();
    return exitCode;
  } catch (error) {
    // Commander has printed its own message (or the help or version that was asked for, with exit code 0).
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.OK : ExitCode.USAGE;
    if (error instanceof InterruptedError) return ExitCode.INTERRUPTED;
    // Whoever read our output has seen enough ("| head").
    if (codeOf(error) === 'EPIPE') return ExitCode.OK;
    writeToStandardError(`romulus: ${codeOf(error)}: ${asError(error).message}\n`);
    await lastWords();
    return isInputError(error) ? ExitCode.USAGE : ExitCode.FAILED;
  }
}
