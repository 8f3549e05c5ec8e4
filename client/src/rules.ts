/** How each event of an entity changes its state, as declared in SQL and carried in `x-sync`: the twin of `model/src/rules.rs`. */

import { isDecimal, isObject, member, type Json, type JsonObject } from './json.js';

/** What one event does. The strings after `value`, `where` and `by` are keys of the payload. */
export type Rule =
  | { readonly rule: 'create' }
  | { readonly rule: 'set'; readonly fields?: readonly string[] }
  | { readonly rule: 'unset'; readonly fields: readonly string[] }
  | { readonly rule: 'append'; readonly field: string; readonly value: string }
  | { readonly rule: 'remove'; readonly field: string; readonly where: Readonly<Record<string, string>> }
  | { readonly rule: 'remove'; readonly field: string; readonly value: string }
  | { readonly rule: 'increment'; readonly field: string; readonly by: string }
  | { readonly rule: 'delete' }
  | { readonly rule: 'ignore' }
  | { readonly rule: 'custom'; readonly function: string };

/** The events of an entity and their rules, by name (`item_added`). */
export type Rules = Readonly<Record<string, Rule>>;

/** A declaration that cannot be read. */
export class RuleError extends Error {
  override readonly name = 'RuleError';
}

/** The rule of an event by name. */
export function ruleOf(rules: Rules, name: string): Rule | undefined {
  return Object.hasOwn(rules, name) ? rules[name] : undefined;
}

/** Reads a declaration: an array of names, or an object of rules by name. */
export function parseRules(declared: unknown): Rules {
  if (Array.isArray(declared)) {
    return Object.fromEntries(declared.map((name: unknown) => [checkedName(name), shortForm(String(name))]));
  }
  if (!isObject(declared)) {
    throw new RuleError('events must be an array of names or an object of rules');
  }
  return Object.fromEntries(Object.entries(declared).map(([name, rule]) => [checkedName(name), longForm(name, rule)]));
}

/** What is wrong with a payload for its rule, before the server says so; undefined if it fits. */
export function misfit(rule: Rule, payload: JsonObject): string | undefined {
  const lacks = (key: string): string | undefined =>
    member(payload, key) === undefined ? `the payload lacks "${key}"` : undefined;
  switch (rule.rule) {
    case 'set':
      return rule.fields === undefined || rule.fields.some((field) => Object.hasOwn(payload, field))
        ? undefined
        : `the payload carries none of the fields that this event sets: ${rule.fields.join(', ')}`;
    case 'append':
      return lacks(rule.value);
    case 'remove':
      return ('where' in rule ? Object.values(rule.where) : [rule.value]).map(lacks).find((text) => text !== undefined);
    case 'increment':
      return lacks(rule.by) ?? (isDecimal(member(payload, rule.by)) ? undefined : `"${rule.by}" is no number`);
    default:
      return undefined;
  }
}

function shortForm(name: string): Rule {
  if (name === 'created') return { rule: 'create' };
  return name === 'deleted' ? { rule: 'delete' } : { rule: 'set' };
}

function longForm(event: string, declared: Json): Rule {
  const wrong = (what: string): RuleError => new RuleError(`event "${event}": ${what}`);
  if (!isObject(declared)) throw wrong('a rule is an object like {"rule": "set"}');
  const text = (name: string): string => {
    const value = member(declared, name);
    if (typeof value !== 'string' || value === '') throw wrong(`"${name}" must be a string`);
    return value;
  };
  const texts = (name: string): readonly string[] => {
    const value = member(declared, name);
    if (!Array.isArray(value) || value.length === 0 || !value.every((item) => typeof item === 'string')) {
      throw wrong(`"${name}" must be an array of names`);
    }
    return value;
  };
  const read = (): Rule => {
    switch (text('rule')) {
      case 'create':
        return { rule: 'create' };
      case 'set':
        return Object.hasOwn(declared, 'fields') ? { rule: 'set', fields: texts('fields') } : { rule: 'set' };
      case 'unset':
        return { rule: 'unset', fields: texts('fields') };
      case 'append':
        return { rule: 'append', field: text('field'), value: text('value') };
      case 'remove': {
        const where = member(declared, 'where');
        if (where === undefined) return { rule: 'remove', field: text('field'), value: text('value') };
        const pairs = isObject(where) ? Object.entries(where) : [];
        if (pairs.length === 0 || Object.hasOwn(declared, 'value') || pairs.some(([, key]) => typeof key !== 'string')) {
          throw wrong('a remove needs either "where", as {"id": "item_id"}, or "value"');
        }
        return { rule: 'remove', field: text('field'), where: where as Record<string, string> };
      }
      case 'increment':
        return { rule: 'increment', field: text('field'), by: text('by') };
      case 'delete':
        return { rule: 'delete' };
      case 'ignore':
        return { rule: 'ignore' };
      case 'custom':
        return { rule: 'custom', function: text('function') };
      default:
        throw wrong(
          `"${text('rule')}" is no rule; there are create, set, unset, append, remove, increment, delete, ignore and custom`,
        );
    }
  };
  const rule = read();
  const unknown = Object.keys(declared).find((name) => !Object.hasOwn(rule, name));
  if (unknown !== undefined) throw wrong(`the rule ${rule.rule} does not take "${unknown}"`);
  return rule;
}

function checkedName(name: unknown): string {
  if (typeof name === 'string' && /^[a-z][a-z0-9_]{0,62}$/.test(name)) return name;
  throw new RuleError(`${JSON.stringify(name)} cannot name an event: lower-case letters, digits and _, a letter first`);
}
