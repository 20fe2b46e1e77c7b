// The linter, and with it the rules of the house: imports point downwards only, operators stand where things run over
// time, decisions are pure, files and functions are short. Circles of imports are found by .dependency-cruiser.mjs.
import js from '@eslint/js';
import prettier from 'eslint-config-prettier';
import tseslint from 'typescript-eslint';

// Each row may import from the rows below it, never from its own row (another room) or from above.
// errors.ts and version.ts stand below everything and any room may import them.
const floors = [
  ['cli'],
  ['service'],
  ['protection'],
  ['primary', 'secondary', 'observe'],
  ['report'],
  ['config'],
  ['save', 'restore', 'channel', 'failover'],
  ['guest'],
  ['hypervisor'],
  ['output', 'disk'],
  ['stream'],
  ['flow'],
];

// Concrete hypervisors are named by service/ and cli/ only.
const hypervisors = ['embedded', 'qemu', 'xen'];

// What is no operator: sources and their ends, which carry events and do nothing by themselves. (EMPTY and EmptyError:
// there is nothing.) Types may be imported anywhere.
const rxjsForAll = [
  ...['Observable', 'Subject', 'BehaviorSubject', 'ReplaySubject'],
  ...['Subscription', 'EMPTY', 'EmptyError'],
];

// Where things run over time. An operator elsewhere would hide time, cancellation or order in a room that is read for
// something else.
const roomsOfOperators = ['flow', 'primary', 'secondary', 'protection'];
const foldersOfOperators = [
  ['observe', 'hooks'],
  ['channel', 'link'],
];

// Decisions: what happens follows from what happened, by nothing else. So they are tested by themselves.
const decisions = [
  ['primary', '{life*,ledger}.ts'],
  ['secondary', '{vigil*,redial}.ts'],
  ['protection', 'role*.ts'],
  ['channel', 'link/heartbeat.ts'],
];

const plainRxjs = {
  paths: [
    {
      name: 'rxjs',
      allowImportNames: rxjsForAll,
      allowTypeImports: true,
      message: 'RxJS operators stand where things run over time (flow, primary, secondary, protection, …).',
    },
  ],
  patterns: [{ regex: '^rxjs/', message: 'RxJS has one door: "rxjs".' }],
};

const nothingOfTheWorld = {
  paths: [],
  patterns: [
    { regex: '^(node:|rxjs)', message: 'a decision is pure: no clock, no file, no stream of events.' },
    { regex: '^(\\.\\./)+config/', message: 'a decision is told its settings; it knows no configuration.' },
  ],
};

/** The floors as `room` sees them; `kind`: in the folder of this hypervisor. */
function walls(room, kind) {
  const level = floors.findIndex((rooms) => rooms.includes(room));
  const closed = floors
    .slice(0, level + 1)
    .flat()
    .filter((other) => other !== room);
  const patterns = closed.map((other) => ({
    regex: `^(\\.\\./)+${other}/`,
    message: `src/${room} must not import from src/${other}: imports point downwards only.`,
  }));
  if (!['cli', 'service', 'hypervisor'].includes(room)) {
    patterns.push({
      regex: `^(\\.\\./)+hypervisor/(${hypervisors.join('|')})/`,
      message: `only service/ and cli/ name a concrete hypervisor; src/${room} knows the port.`,
    });
  }
  const neighbours = hypervisors.filter((other) => other !== kind).join('|');
  if (kind) {
    patterns.push({
      regex: `^(\\.\\./)+(${neighbours})/`,
      message: `src/hypervisor/${kind} must not know another hypervisor.`,
    });
  }
  if (room === 'hypervisor' && !kind) {
    patterns.push({ regex: `^\\./(${neighbours})/`, message: 'the port knows no hypervisor.' });
  }
  return { paths: [], patterns };
}

/** One rule is in force for a file, the last that fits it: so each is whole. */
function importRule(files, ...restrictions) {
  const rule = {
    paths: restrictions.flatMap(({ paths }) => paths),
    patterns: restrictions.flatMap(({ patterns }) => patterns),
  };
  return { files, rules: { 'no-restricted-imports': ['error', rule] } };
}

const importRules = [
  ...floors
    .flat()
    .map((room) =>
      importRule(
        [`src/${room}/**/*.ts`],
        walls(room),
        ...(roomsOfOperators.includes(room) ? [] : [plainRxjs]),
      ),
    ),
  // Their event code has operators.
  ...hypervisors.map((kind) => importRule([`src/hypervisor/${kind}/**/*.ts`], walls('hypervisor', kind))),
  ...foldersOfOperators.map(([room, folder]) => importRule([`src/${room}/${folder}/**/*.ts`], walls(room))),
  ...decisions.map(([room, files]) => importRule([`src/${room}/${files}`], walls(room), nothingOfTheWorld)),
  importRule(['src/errors.ts', 'src/version.ts'], {
    paths: [],
    patterns: [{ regex: '^\\./', message: 'what stands below everything imports nothing of ours.' }],
  }),
];

const FILE_LINES = 350;
const FUNCTION_LINES = 70;

/**
 * max-lines-per-function for tests: what describe() is given is a chapter, not a function. Its length is that of its
 * tests, and no reader holds it in his head at once.
 */
const functionLines = {
  meta: { type: 'suggestion', schema: [], messages: { long: '{{lines}} lines; {{limit}} at most.' } },
  create(context) {
    const isChapter = ({ parent }) =>
      parent.type === 'CallExpression' && /^describe\b/.test(context.sourceCode.getText(parent.callee));
    const check = (node) => {
      const lines = node.loc.end.line - node.loc.start.line + 1;
      if (lines <= FUNCTION_LINES || isChapter(node)) return;
      context.report({ node, messageId: 'long', data: { lines, limit: FUNCTION_LINES } });
    };
    return { FunctionDeclaration: check, FunctionExpression: check, ArrowFunctionExpression: check };
  },
};

// Tests that are longer, by name. What is new stays within the limits; who works on one of these cuts it.
const longerTests = [
  // A hypervisor for tests: one class with two interfaces of the port, a few lines for each call.
  ...['test/memory/domain.ts', 'test/memory/pv-domain.ts'],
  // Two hosts, a link and a world under virtual time, which are one drawing; a pair of COLO, too.
  ...['test/service/two-hosts.ts', 'test/save/colo-support.ts', 'test/primary/virtual-primary.ts'],
  ...['test/primary/capture.test.ts', 'test/secondary/virtual-secondary.ts'],
  // A model and all that may be done to it, in one property.
  ...['test/secondary/vigil.test.ts', 'test/output/*.test.ts', 'test/guest/pv-round-trip.test.ts'],
  ...['test/primary/primary.test.ts', 'test/save/round-trip.test.ts'],
  // One story from a start to an end; cut up it would have to be told in each part.
  ...['test/bench/*.bench.ts', 'test/channel/replication.test.ts'],
  ...['test/hypervisor/qemu/capture.test.ts', 'test/hypervisor/qemu/equality.test.ts'],
  // One subject with the helpers that all of its chapters need.
  ...['test/restore/restore.test.ts', 'test/save/checkpoints.test.ts', 'test/stream/layers.test.ts'],
];

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-extraneous-class': 'off',
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      eqeqeq: 'error',
      'no-console': 'error',
    },
  },
  ...importRules,
  {
    files: ['src/**/*.ts'],
    rules: {
      'max-lines': ['error', FILE_LINES],
      'max-lines-per-function': ['error', FUNCTION_LINES],
    },
  },
  {
    files: ['test/**/*.ts'],
    plugins: { house: { rules: { 'function-lines': functionLines } } },
    rules: { 'max-lines': ['error', FILE_LINES], 'house/function-lines': 'error' },
  },
  { files: longerTests, rules: { 'max-lines': 'off', 'house/function-lines': 'off' } },
  {
    // chai's assertions are property reads.
    files: ['test/**/*.ts'],
    rules: { '@typescript-eslint/no-unused-expressions': 'off', 'no-console': 'off' },
  },
  { files: ['**/*.js'], languageOptions: { globals: { process: 'readonly', URL: 'readonly' } } },
  prettier,
);
