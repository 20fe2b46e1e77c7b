// The linter, and with it the house's one structural rule: imports point downwards only.
import js from '@eslint/js';
import prettier from 'eslint-config-prettier';
import tseslint from 'typescript-eslint';

// Each row may import from the rows below it, never from its own row (another room) or from above.
// errors.ts stands below everything and any room may import it.
const floors = [
  ['cli'],
  ['service'],
  ['protection'],
  ['primary', 'secondary', 'observe'],
  ['report'],
  ['config'],
  ['save', 'restore', 'disk', 'channel', 'failover'],
  ['guest'],
  ['hypervisor'],
  ['output'],
  ['stream'],
  ['flow'],
];

// Concrete hypervisors are named by service/ and cli/ only.
const hypervisors = ['embedded', 'qemu', 'xen'];

function roomRule(room, level) {
  const forbidden = floors
    .slice(0, level + 1)
    .flat()
    .filter((other) => other !== room);
  const patterns = forbidden.map((other) => ({
    regex: `^(\\.\\./)+${other}/`,
    message: `src/${room} must not import from src/${other}: imports point downwards only.`,
  }));
  if (!['cli', 'service', 'hypervisor'].includes(room)) {
    patterns.push({
      regex: `^(\\.\\./)+hypervisor/(${hypervisors.join('|')})/`,
      message: `only service/ and cli/ name a concrete hypervisor; src/${room} knows the port.`,
    });
  }
  return {
    files: [`src/${room}/**/*.ts`],
    rules: { 'no-restricted-imports': ['error', { patterns }] },
  };
}

// A hypervisor's folder knows the port and the floors below, not its neighbours.
function hypervisorRule(kind) {
  const neighbours = hypervisors.filter((other) => other !== kind);
  const rule = roomRule(
    'hypervisor',
    floors.findIndex((rooms) => rooms.includes('hypervisor')),
  );
  const [severity, { patterns }] = rule.rules['no-restricted-imports'];
  const neighbour = {
    regex: `^\\.\\./(${neighbours.join('|')})/`,
    message: `src/hypervisor/${kind} must not know another hypervisor.`,
  };
  return {
    files: [`src/hypervisor/${kind}/**/*.ts`],
    rules: { 'no-restricted-imports': [severity, { patterns: [...patterns, neighbour] }] },
  };
}

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
  ...floors.flatMap((rooms, level) => rooms.map((room) => roomRule(room, level))),
  ...hypervisors.map((kind) => hypervisorRule(kind)),
  {
    // chai's assertions are property reads.
    files: ['test/**/*.ts'],
    rules: { '@typescript-eslint/no-unused-expressions': 'off', 'no-console': 'off' },
  },
  { files: ['**/*.js'], languageOptions: { globals: { process: 'readonly', URL: 'readonly' } } },
  prettier,
);
